package checkpoint

import (
	"context"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/cut"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A pipeline carries data from files into segments. Whoever calls it reads and
// cuts; several goroutines hash and compress; one packs, in the order in which
// the data came. Its memory is bounded by the number of its blocks.
type pipeline struct {
	packer *packer
	find   func(format.Hash) (catalog.ID, bool) // chunks that need not be stored
	codec  *codec.Codec
	meter  *meter
	ctx    context.Context // ends with the first error of any of them
	cancel context.CancelCauseFunc
	group  *errgroup.Group

	free  chan *block // those that are not in use
	queue chan *block // to be packed
	block *block      // the one being filled
	size  int         // of the next block to be made
}

// A block is data on its way, and the chunks that it is cut into.
type block struct {
	data   []byte
	pieces []piece
	stored []byte        // the compressed pieces, end to end
	ready  chan struct{} // closed when the pieces are hashed and compressed
	packed chan struct{} // closed when it is packed, if anyone waits for that
}

// A piece is one chunk of a block.
type piece struct {
	data  []byte        // in block.data
	to    *[]catalog.ID // the list that the chunk belongs to
	again bool          // store it although it is known, and

	hash     format.Hash
	id       catalog.ID // if it is known
	known    bool
	encoding format.Encoding
	stored   []byte // in block.data or block.stored
}

const (
	blockSize = 1 << 20
	// smallBlock is the size of the first, which is enough for small states. A
	// chunk of any length fits in.
	smallBlock = 128 << 10
	// maxBlocks bounds the blocks of one save: more would not make it faster
	// than the store is.
	maxBlocks = 12
)

// newPipeline returns a pipeline in front of p. finish must be called.
func newPipeline(ctx context.Context, p *packer, find func(format.Hash) (catalog.ID, bool), c *codec.Codec, m *meter) *pipeline {
	group, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	blocks := min(runtime.GOMAXPROCS(0)+2, maxBlocks)
	l := &pipeline{
		packer: p, find: find, codec: c, meter: m, ctx: ctx, cancel: cancel, group: group, size: smallBlock,
		free: make(chan *block, blocks), queue: make(chan *block, blocks),
	}
	for range blocks {
		l.free <- nil // made when it is first needed
	}
	group.Go(l.packAll)
	return l
}

// take makes a free block the one being filled.
func (l *pipeline) take() error {
	select {
	case b := <-l.free:
		if b == nil {
			b = &block{data: make([]byte, 0, l.size)}
			l.size = blockSize
		}
		b.data, b.pieces, b.stored = b.data[:0], b.pieces[:0], b.stored[:0]
		b.ready, b.packed = make(chan struct{}), nil
		l.block = b
		return nil
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	}
}

// send hands a filled block on.
func (l *pipeline) send(b *block) {
	l.group.Go(func() error {
		l.prepare(b)
		close(b.ready)
		return nil
	})
	l.queue <- b // which has room for every block
}

// add cuts what r yields into chunks, whose IDs go to list once they are
// packed. It returns how many bytes it read.
func (l *pipeline) add(r io.Reader, c *cut.Cutter, list *[]catalog.ID) (size int64, err error) {
	uncut := 0
	for end := false; !end; {
		if l.block == nil {
			if err := l.take(); err != nil {
				return size, err
			}
		}
		b := l.block
		start := len(b.data) - uncut
		var n int
		n, end, err = fill(l.ctx, b.data[len(b.data):cap(b.data)], r)
		size += int64(n)
		if err != nil {
			return size, err
		}
		b.data = b.data[:len(b.data)+n]
		rest := b.cut(start, c, end, list)
		uncut = len(rest)
		if len(b.data) == cap(b.data) {
			if err := l.nextBlock(rest); err != nil {
				return size, err
			}
		}
	}
	return size, nil
}

// cut makes pieces of the data from start on, and returns what is too short to
// be one yet.
func (b *block) cut(start int, c *cut.Cutter, end bool, list *[]catalog.ID) []byte {
	rest := b.data[start:]
	for len(rest) > 0 {
		n := c.Next(rest, end)
		if n == 0 {
			break
		}
		b.pieces = append(b.pieces, piece{data: rest[:n], to: list})
		rest = rest[n:]
	}
	return rest
}

// nextBlock sends a full block. What is not cut yet moves on to the next.
func (l *pipeline) nextBlock(rest []byte) error {
	full := l.block
	if err := l.take(); err != nil {
		return err
	}
	l.block.data = append(l.block.data, rest...)
	l.send(full)
	return nil
}

// again adds a chunk that is to be stored although it is known.
func (l *pipeline) again(data []byte, list *[]catalog.ID) error {
	if l.block != nil && cap(l.block.data)-len(l.block.data) < len(data) {
		l.flush()
	}
	if l.block == nil {
		if err := l.take(); err != nil {
			return err
		}
	}
	b := l.block
	start := len(b.data)
	b.data = append(b.data, data...)
	b.pieces = append(b.pieces, piece{data: b.data[start:], to: list, again: true})
	return nil
}

func (l *pipeline) flush() {
	if l.block != nil {
		l.send(l.block)
		l.block = nil
	}
}

// wait returns when all that was added is packed.
func (l *pipeline) wait() error {
	if l.block == nil {
		if err := l.take(); err != nil {
			return err
		}
	}
	packed := make(chan struct{})
	l.block.packed = packed
	l.flush()
	select {
	case <-packed:
		return nil
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	}
}

// finish packs what was added, and ends the pipeline. It returns err or, if
// that is nil or came of it, the first error of the pipeline's own.
func (l *pipeline) finish(err error) error {
	if err == nil {
		l.flush()
	} else {
		l.cancel(err)
	}
	close(l.queue)
	defer l.cancel(nil)
	if own := l.group.Wait(); own != nil {
		return own
	}
	return err
}

// prepare hashes the pieces of a block, and compresses those that are new.
func (l *pipeline) prepare(b *block) {
	var pays sampler
	for i := range b.pieces {
		p := &b.pieces[i]
		p.hash = format.Sum(p.data)
		if p.id, p.known = l.find(p.hash); p.known && !p.again {
			continue
		}
		p.known = false
		p.stored = p.data
		if !pays.worthTrying() {
			continue
		}
		start := len(b.stored)
		if p.encoding, b.stored = l.codec.Encode(b.stored, p.data); p.encoding != format.Raw {
			p.stored = b.stored[start:]
		}
		pays.tried(len(p.data), len(p.stored))
	}
}

// A sampler tells whether compressing the next piece of a block is worth trying,
// by how it went with those before. The encoder gives up at once on what does not
// repeat itself, but not on what does so a little, such as tables that their
// database has compressed: there it took 4 s for each GiB to save a twentieth.
type sampler struct {
	before, after int // bytes of the pieces that were tried
	skipped       int // since the last one
}

const (
	thriftSample = 64 << 10 // bytes that are tried in any case
	thriftGain   = 8        // it pays if it saves one byte in so many
	thriftSkip   = 7        // how many pieces are skipped before the next try if it does not
)

func (t *sampler) worthTrying() bool {
	if t.before < thriftSample || (t.before-t.after)*thriftGain >= t.before || t.skipped == thriftSkip {
		t.skipped = 0
		return true
	}
	t.skipped++
	return false
}

func (t *sampler) tried(before, after int) {
	t.before += before
	t.after += after
}

// packAll packs the blocks in the order in which they were sent.
func (l *pipeline) packAll() error {
	for b := range l.queue {
		select {
		case <-b.ready:
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		}
		var bytes int64
		for i := range b.pieces {
			p := &b.pieces[i]
			if err := l.pack(p); err != nil {
				return err
			}
			if !p.again {
				bytes += int64(len(p.data))
			}
		}
		l.meter.add(Progress{Bytes: bytes})
		if b.packed != nil {
			close(b.packed)
		}
		l.free <- b
	}
	return nil
}

func (l *pipeline) pack(p *piece) (err error) {
	if !p.known && !p.again { // it may have come twice
		p.id, p.known = l.find(p.hash)
	}
	if !p.known {
		if p.id, err = l.packer.add(p.hash, len(p.data), p.encoding, p.stored); err != nil {
			return err
		}
	}
	*p.to = append(*p.to, p.id)
	return nil
}
