package checkpoint

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A packer puts chunks into segments and sends these, several at a time. It is
// used by one goroutine at a time.
type packer struct {
	store   backend.Store
	dir     string
	size    int // of a segment
	catalog *catalog.Catalog
	next    format.SegmentID

	buf     []byte      // the segment that is being filled
	open    int         // its number in the catalog
	inlined bool        // it is to ride in the manifest
	free    chan []byte // buffers of segments that have been sent
	meter   *meter      // nil if nobody counts
	group   *errgroup.Group
	ctx     context.Context // of group: ends with the first upload that fails

	sent []format.Segment
}

// newPacker returns a packer whose segments are first, and those after it.
// finish or abandon must be called.
func newPacker(ctx context.Context, t *Task, c *catalog.Catalog, first format.SegmentID) *packer {
	group, ctx := errgroup.WithContext(ctx)
	opts := &t.job.opts
	group.SetLimit(opts.Uploads)
	p := &packer{
		store: t.job.store, dir: t.log.Dir, size: opts.SegmentSize,
		catalog: c, next: first, group: group, ctx: ctx,
		free: make(chan []byte, opts.Uploads+1),
	}
	for range cap(p.free) {
		p.free <- nil // made when it is first needed
	}
	return p
}

// add packs one chunk, of which stored is what is to be kept. It does not keep
// the slice.
func (p *packer) add(hash format.Hash, size int, e format.Encoding, stored []byte) (catalog.ID, error) {
	if len(p.buf) > 0 && len(p.buf)+len(stored) > p.size {
		if err := p.flush(); err != nil {
			return 0, err
		}
	}
	if len(p.buf) == 0 {
		if err := p.begin(); err != nil {
			return 0, err
		}
	}
	c := format.Chunk{Offset: int64(len(p.buf)), Size: int64(size), Encoding: e, Hash: hash}
	if e != format.Raw {
		c.Stored = int64(len(stored))
	}
	p.grow(len(stored))
	p.buf = append(p.buf, stored...)
	return p.catalog.Add(p.open, &c), nil
}

// begin begins a segment.
func (p *packer) begin() error {
	if p.buf == nil {
		select {
		case buf := <-p.free:
			p.buf = buf[:0]
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
	s := format.Segment{ID: p.next}
	if p.inlined {
		s.ID = format.SegmentID{}
	}
	p.open = p.catalog.AddSegment(s)
	return nil
}

// grow makes room for n more bytes. A segment that becomes a large one gets all
// of its memory at once: growing by doubling would take twice as much.
func (p *packer) grow(n int) {
	need := len(p.buf) + n
	if need > cap(p.buf) && need > p.size/16 {
		p.buf = slices.Grow(p.buf, max(p.size, need)-len(p.buf))
	}
}

// flush sends the segment that is being filled.
func (p *packer) flush() error {
	if len(p.buf) == 0 {
		return nil
	}
	buf, s := p.buf, format.Segment{ID: p.next, Size: int64(len(p.buf))}
	p.buf = nil
	p.next.N++
	p.sent = append(p.sent, s)
	p.catalog.SetSegment(p.open, s)
	p.group.Go(func() error {
		_, err := p.store.Put(p.ctx, format.SegmentKey(p.dir, s.ID), buf)
		p.free <- buf
		if err == nil && p.meter != nil {
			p.meter.add(Progress{Moved: s.Size})
		}
		return err
	})
	return context.Cause(p.ctx)
}

// finish sends what is left and waits until all segments are in the store.
func (p *packer) finish() error {
	flushed := p.flush()
	if err := p.group.Wait(); err != nil {
		return err
	}
	return flushed
}

// abandon waits for the uploads under way, whatever comes of them.
func (p *packer) abandon() { _ = p.group.Wait() }

// small reports whether what was packed can ride in the manifest.
func (p *packer) small() bool { return len(p.sent) == 0 && len(p.buf) > 0 && len(p.buf) <= inlineMax }

// A point is how far a packer has come with a segment.
type point struct {
	mark catalog.Mark
	size int
}

func (p *packer) point() point { return point{p.catalog.Mark(), len(p.buf)} }

// inlineFrom forgets what was packed since at, and makes inline data of what
// came before and of what comes now. Nothing must have been sent.
func (p *packer) inlineFrom(at point) {
	p.catalog.Reset(at.mark)
	p.buf, p.inlined = p.buf[:at.size], true
	if at.size > 0 {
		p.catalog.SetSegment(p.open, format.Segment{})
	}
}

// takeInline returns the inline data, which is sent nowhere.
func (p *packer) takeInline() []byte {
	inline := bytes.Clone(p.buf)
	p.catalog.SetSegment(p.open, format.Segment{Size: int64(len(inline))})
	p.buf, p.inlined = p.buf[:0], false
	return inline
}

// spill packs a part of a manifest that is too large for it, as one chunk.
func (p *packer) spill(c *codec.Codec, what string, data []byte) (*format.Chunk, error) {
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
	id, err := p.add(format.Sum(data), len(data), e, stored)
	if err != nil {
		return nil, err
	}
	at := p.catalog.Chunk(id)
	return &at, nil
}

// placeRetained returns the list of retained checkpoints or, if it is large,
// where it has been packed.
func (p *packer) placeRetained(c *codec.Codec, list []format.Retained) ([]format.Retained, *format.Chunk, error) {
	data, err := format.EncodeRetained(list)
	if err != nil || len(data) <= format.MaxPart {
		return list, nil, err
	}
	at, err := p.spill(c, "list of retained checkpoints", data)
	return nil, at, err
}

// keys returns the keys of the segments that were sent, wholly or not.
func (p *packer) keys() []string {
	keys := make([]string, len(p.sent))
	for i, s := range p.sent {
		keys[i] = format.SegmentKey(p.dir, s.ID)
	}
	return keys
}
