package checkpoint

import (
	"bytes"
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A packer puts chunks into segments, and uploads several segments at a time. One
// goroutine at a time may use it.
type packer struct {
	store   backend.Store
	dir     string
	size    int // of a segment
	memory  *memory
	done    func() // of memory
	catalog *catalog.Catalog
	files   int64 // what the lists of files of this save take in memory
	counted int64 // what memory knows of the lists of this save
	next    format.SegmentID

	buf     []byte // the segment that is being filled
	taken   bool   // buf is memory's
	open    int    // the number of that segment in the catalog
	inlined bool   // it becomes inline data of the manifest
	meter   *meter // nil if progress is not reported
	group   *errgroup.Group
	ctx     context.Context // of group: ends when an upload fails

	sent []format.Segment
}

// newPacker returns a packer whose segments are numbered from first on.
// finish or abandon must be called.
func newPacker(ctx context.Context, t *Task, c *catalog.Catalog, first format.SegmentID) *packer {
	group, ctx := errgroup.WithContext(ctx)
	data := t.job.data
	group.SetLimit(data.fits(int64(data.segment))) // small segments have memory of their own
	return &packer{
		store: t.job.store, dir: t.log.Dir, size: data.segment, memory: data, done: data.open(),
		catalog: c, next: first, group: group, ctx: ctx,
	}
}

// add packs one chunk of size bytes. stored is the chunk as it is to be stored, encoded by
// e. add does not keep the slice.
func (p *packer) add(hash format.Hash, size int, e format.Encoding, stored []byte) (catalog.ID, error) {
	if len(p.buf) > 0 && len(p.buf)+len(stored) > p.size {
		if err := p.flush(); err != nil {
			return 0, err
		}
	}
	if len(p.buf) == 0 {
		p.begin()
	}
	c := format.Chunk{Offset: int64(len(p.buf)), Size: int64(size), Encoding: e, Hash: hash}
	if e != format.Raw {
		c.Stored = int64(len(stored))
	}
	if err := p.grow(len(stored)); err != nil {
		return 0, err
	}
	p.buf = append(p.buf, stored...)
	return p.catalog.Add(p.open, &c), nil
}

// begin begins a new segment.
func (p *packer) begin() {
	s := format.Segment{ID: p.next}
	if p.inlined {
		s.ID = format.SegmentID{}
	}
	p.open = p.catalog.AddSegment(s)
}

// grow makes room for n more bytes. Once a segment is larger than a sixteenth of its
// maximum, it gets all of its memory at once, when there is some: doubling it again and
// again would take twice as much. What comes after a full segment gets it from the start.
func (p *packer) grow(n int) error {
	need := len(p.buf) + n
	if need <= cap(p.buf) || need <= p.size/16 && len(p.sent) == 0 {
		return nil
	}
	if p.taken { // it is empty, and too small for a single chunk: nobody waits with a buffer in hand
		p.drop()
	}
	p.count(p.files + p.catalog.Memory())
	buf, err := p.memory.take(p.ctx, max(p.size, need))
	if err != nil {
		return err
	}
	p.buf, p.taken = append(buf, p.buf...), true
	return nil
}

// count says how much memory the lists of this save take now.
func (p *packer) count(bytes int64) {
	p.memory.count(bytes - p.counted)
	p.counted = bytes
}

// drop gives the buffer back.
func (p *packer) drop() {
	if p.taken {
		p.memory.give(p.buf)
	}
	p.buf, p.taken = nil, false
}

// flush sends the segment that is being filled.
func (p *packer) flush() error {
	if len(p.buf) == 0 {
		return nil
	}
	buf, taken, s := p.buf, p.taken, format.Segment{ID: p.next, Size: int64(len(p.buf))}
	p.buf, p.taken = nil, false
	p.next.N++
	p.sent = append(p.sent, s)
	p.catalog.SetSegment(p.open, s)
	p.group.Go(func() error {
		_, err := p.store.Put(p.ctx, format.SegmentKey(p.dir, s.ID), buf)
		if taken {
			p.memory.give(buf)
		}
		if err == nil && p.meter != nil {
			p.meter.add(Progress{Moved: s.Size})
		}
		return err
	})
	return context.Cause(p.ctx)
}

// yield sends the segment that is being filled, if that has memory which others may wait for. Who is
// about to fetch something, and so waits for memory itself, calls it before: of several saves, each
// would wait for what the others have.
func (p *packer) yield() error {
	if !p.taken {
		return nil
	}
	return p.flush()
}

// finish sends what is left and waits until all segments are in the store.
func (p *packer) finish() error {
	flushed := p.flush()
	if err := p.wait(); err != nil {
		return err
	}
	return flushed
}

// abandon waits for the uploads under way, and ignores their errors.
func (p *packer) abandon() { _ = p.wait() }

func (p *packer) wait() error {
	err := p.group.Wait()
	p.drop()
	p.count(0)
	p.done()
	return err
}

// small reports whether what was packed can ride in the manifest.
func (p *packer) small() bool { return len(p.sent) == 0 && len(p.buf) > 0 && len(p.buf) <= inlineMax }

// A point is how far a packer has come with a segment.
type point struct {
	mark catalog.Mark
	size int
}

func (p *packer) point() point { return point{p.catalog.Mark(), len(p.buf)} }

// inlineFrom removes what was packed since at. What was packed before that, and what is
// packed from now on, becomes inline data. No segment must have been sent.
func (p *packer) inlineFrom(at point) {
	p.catalog.Reset(at.mark)
	p.buf, p.inlined = p.buf[:at.size], true
	if at.size > 0 {
		p.catalog.SetSegment(p.open, format.Segment{})
	}
}

// takeInline returns the inline data, which is not sent as a segment.
func (p *packer) takeInline() []byte {
	inline := bytes.Clone(p.buf)
	p.catalog.SetSegment(p.open, format.Segment{Size: int64(len(inline))})
	p.buf, p.inlined = p.buf[:0], false
	return inline
}

// A part is a part of a manifest that is too large for the manifest, as it is to be stored.
type part struct {
	data, stored []byte
	encoding     format.Encoding
}

// encodePart encodes a part. what says what it is.
func encodePart(c *codec.Codec, what string, data []byte) (*part, error) {
	if len(data) > format.MaxChunk {
		return nil, fmt.Errorf("%s of %d bytes, more than %d", what, len(data), format.MaxChunk)
	}
	stored := data
	e, encoded := c.Encode(nil, data)
	if int64(len(data)) > format.MaxSpilled(int64(len(encoded))) {
		e = format.Raw
	}
	if e != format.Raw {
		stored = encoded
	}
	return &part{data, stored, e}, nil
}

// addPart packs a part as one chunk.
func (p *packer) addPart(part *part) (*format.Chunk, error) {
	id, err := p.add(format.Sum(part.data), len(part.data), part.encoding, part.stored)
	if err != nil {
		return nil, err
	}
	at := p.catalog.Chunk(id)
	return &at, nil
}

// spill encodes a part, and packs it.
func (p *packer) spill(c *codec.Codec, what string, data []byte) (*format.Chunk, error) {
	part, err := encodePart(c, what, data)
	if err != nil {
		return nil, err
	}
	return p.addPart(part)
}

// keys returns the keys of all segments whose upload was begun, finished or not.
func (p *packer) keys() []string {
	keys := make([]string, len(p.sent))
	for i, s := range p.sent {
		keys[i] = format.SegmentKey(p.dir, s.ID)
	}
	return keys
}
