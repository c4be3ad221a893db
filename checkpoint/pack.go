package checkpoint

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// maxChunk is the largest piece that data is cut into, in bytes: what a reader
// must fetch and check to read one byte.
const maxChunk = 1 << 20

// A packer puts chunks into segments and sends these, several at a time. It is
// used by one goroutine.
type packer struct {
	store backend.Store
	dir   string
	size  int // of a segment
	next  format.SegmentID

	buf   []byte      // the segment that is being filled, number next
	free  chan []byte // buffers of segments that have been sent
	group *errgroup.Group
	ctx   context.Context // of group: ends with the first upload that fails

	sent []format.Segment
}

// newPacker returns a packer whose segments are first, and those after it.
// finish or abandon must be called.
func newPacker(ctx context.Context, t *Task, first format.SegmentID) *packer {
	group, ctx := errgroup.WithContext(ctx)
	opts := &t.job.opts
	group.SetLimit(opts.Uploads)
	p := &packer{
		store: t.job.store, dir: t.history.dir, size: opts.SegmentSize,
		next: first, group: group, ctx: ctx,
		free: make(chan []byte, opts.Uploads+1),
	}
	for range cap(p.free) {
		p.free <- nil // made when it is first needed
	}
	return p
}

// chunkSize is the size of the pieces that data is cut into.
func (p *packer) chunkSize() int { return min(maxChunk, p.size) }

// add packs one chunk. It does not keep data.
func (p *packer) add(data []byte) (format.Chunk, error) {
	if len(p.buf)+len(data) > p.size {
		if err := p.flush(); err != nil {
			return format.Chunk{}, err
		}
	}
	if p.buf == nil {
		if err := p.takeBuffer(); err != nil {
			return format.Chunk{}, err
		}
	}
	c := format.Chunk{
		Segment: p.next,
		Offset:  int64(len(p.buf)),
		Size:    int64(len(data)),
		Hash:    format.Sum(data),
	}
	p.grow(len(data))
	p.buf = append(p.buf, data...)
	return c, nil
}

// grow makes room for n more bytes. A segment that becomes a large one gets all
// of its memory at once: growing by doubling would take twice as much.
func (p *packer) grow(n int) {
	need := len(p.buf) + n
	if need > cap(p.buf) && need > p.size/16 {
		p.buf = slices.Grow(p.buf, max(p.size, need)-len(p.buf))
	}
}

// addAll packs data of any length.
func (p *packer) addAll(data []byte) ([]format.Chunk, error) {
	var chunks []format.Chunk
	for len(data) > 0 {
		n := min(len(data), p.chunkSize())
		c, err := p.add(data[:n])
		if err != nil {
			return nil, err
		}
		chunks = append(chunks, c)
		data = data[n:]
	}
	return chunks, nil
}

func (p *packer) takeBuffer() error {
	select {
	case buf := <-p.free:
		p.buf = buf[:0]
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

// flush sends the segment that is being filled.
func (p *packer) flush() error {
	if len(p.buf) == 0 {
		return nil
	}
	buf, id := p.buf, p.next
	p.buf = nil
	p.next.N++
	p.sent = append(p.sent, format.Segment{ID: id, Size: int64(len(buf))})
	p.group.Go(func() error {
		_, err := p.store.Put(p.ctx, format.SegmentKey(p.dir, id), buf)
		p.free <- buf
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

// takeInline returns the bytes packed so far, if they are few and none of them
// have been sent, and makes the packer forget them.
func (p *packer) takeInline(limit int) ([]byte, bool) {
	if len(p.sent) > 0 || len(p.buf) == 0 || len(p.buf) > limit {
		return nil, false
	}
	inline := append([]byte(nil), p.buf...)
	p.buf = p.buf[:0]
	return inline, true
}

// spill packs a part of a manifest that is too large for it, as one chunk in
// the packer's next segment.
func (p *packer) spill(what string, data []byte) (*format.Chunk, error) {
	if len(data) > format.MaxSegment {
		return nil, fmt.Errorf("%s of %d bytes, more than %d", what, len(data), format.MaxSegment)
	}
	c, err := p.add(data)
	return &c, err
}

// keys returns the keys of the segments that were sent, wholly or not.
func (p *packer) keys() []string {
	keys := make([]string, len(p.sent))
	for i, s := range p.sent {
		keys[i] = format.SegmentKey(p.dir, s.ID)
	}
	return keys
}
