package checkpoint

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/cut"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A pipeline carries data from files into segments. The goroutine that calls add reads
// files and divides them into chunks. Several goroutines hash and compress the chunks. One
// packs them, in the order in which they were read. What fits into a single block is handled
// by the caller itself. The number of blocks bounds the memory.
type pipeline struct {
	packer *packer
	find   func(format.Hash) (catalog.ID, bool) // finds a chunk that need not be stored again
	codec  *codec.Codec
	mode   Compression
	meter  *meter
	ctx    context.Context // ends with the first error of any goroutine
	cancel context.CancelCauseFunc
	group  *errgroup.Group

	free  chan *block // blocks that are not in use
	queue chan *block // blocks to be packed
	block *block      // the block that is being filled
	made  bool        // there is a block already
	begun bool        // the goroutine that packs
	taken int64       // how much of the memory for blocks it has
}

// A block is some data on its way through the pipeline, and the chunks that it is cut into.
type block struct {
	data   []byte
	pieces []piece
	stored []byte        // the compressed pieces, end to end
	ready  chan struct{} // closed when the pieces are hashed and compressed
	packed chan struct{} // closed when the block is packed; nil if nobody waits for that
}

// A piece is one chunk of a block.
type piece struct {
	data  []byte        // in block.data, or zeroChunk
	to    *[]catalog.ID // the list that the chunk belongs to
	more  int           // how many times more it comes in the list, right behind
	again bool          // store it although an equal chunk is stored already

	hash     format.Hash
	id       catalog.ID // of the equal chunk that is stored already, if known
	known    bool
	encoding format.Encoding
	stored   []byte // data itself, or in block.stored
}

const (
	blockSize = 1 << 20
	// smallBlock is the size of the first block, so that small states take little memory,
	// and of others when there is little. The longest chunk fits in.
	smallBlock = 128 << 10
	// maxBlocks bounds the blocks of one save. With more of them the store would still be
	// the slowest part.
	maxBlocks = 12
)

// newPipeline returns a pipeline in front of p. finish must be called.
func newPipeline(ctx context.Context, p *packer, find func(format.Hash) (catalog.ID, bool), c *codec.Codec, mode Compression, m *meter) *pipeline {
	group, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	blocks := min(runtime.GOMAXPROCS(0)+2, maxBlocks)
	l := &pipeline{
		packer: p, find: find, codec: c, mode: mode, meter: m, ctx: ctx, cancel: cancel, group: group,
		free: make(chan *block, blocks), queue: make(chan *block, blocks),
	}
	for range blocks {
		l.free <- nil // made when it is first needed
	}
	return l
}

// take gets a free block, to be filled next.
func (l *pipeline) take() error {
	select {
	case b := <-l.free:
		if b == nil {
			b = l.newBlock()
		}
		b.data, b.pieces, b.stored = b.data[:0], b.pieces[:0], b.stored[:0]
		b.ready, b.packed = make(chan struct{}), nil
		l.block = b
		return nil
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	}
}

// newBlock returns a block that was not in use before, of the size for which there is memory. It
// does not wait for that.
func (l *pipeline) newBlock() *block {
	const both = 2 * blockSize // with what is compressed
	if l.made && l.packer.memory.blocks.TryAcquire(both) {
		l.taken += both
		return &block{data: make([]byte, 0, blockSize)}
	}
	l.made = true
	if b, ok := l.packer.memory.small.Get().(*block); ok {
		return b
	}
	return &block{data: make([]byte, 0, smallBlock)}
}

// keepSmall keeps small blocks for the next save: to make one takes longer than all else that a commit
// of a small state does.
func (l *pipeline) keepSmall() {
	for range cap(l.free) {
		select {
		case b := <-l.free:
			if b != nil && cap(b.data) == smallBlock {
				clear(b.pieces[:cap(b.pieces)]) // they keep the lists of this save in memory
				l.packer.memory.small.Put(b)
			}
		default:
			return
		}
	}
}

// send gives a filled block to the goroutines that hash, compress and pack.
func (l *pipeline) send(b *block) {
	if !l.begun {
		l.begun = true
		l.group.Go(l.packAll)
	}
	l.group.Go(func() error {
		l.prepare(b)
		close(b.ready)
		return nil
	})
	l.queue <- b // never blocks: the queue has room for every block
}

// add cuts what r yields into chunks, whose IDs go to list once they are
// packed. It returns how many bytes it read. Of the holes of a sparseReader, those that are
// longer than what is left of a block are not read.
func (l *pipeline) add(r io.Reader, c *cut.Cutter, list *[]catalog.ID) (size int64, err error) {
	sparse, _ := r.(*sparseReader)
	uncut, count := 0, 0
	for end := false; !end; {
		if l.block == nil {
			if err := l.take(); err != nil {
				return size, err
			}
		}
		b := l.block
		start := len(b.data) - uncut
		before := len(b.pieces)
		if chunks, skipped := sparse.skip(uncut); chunks > 0 {
			b.data = b.data[:start]
			b.pieces = append(b.pieces, piece{data: zeroChunk, to: list, more: chunks - 1})
			size += skipped
			count += chunks - 1
		}
		var n int
		n, end, err = fill(l.ctx, b.data[len(b.data):cap(b.data)], r)
		size += int64(n)
		if err != nil {
			return size, err
		}
		b.data = b.data[:len(b.data)+n]
		rest := b.cut(start, c, end, list)
		if count += len(b.pieces) - before; count > l.packer.memory.chunks {
			return size, fmt.Errorf("it has more than %d chunks after %d bytes, more than can be restored", l.packer.memory.chunks, size)
		}
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

// nextBlock sends a full block. rest, its end that is not cut yet, is copied to the next
// block.
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

// finish packs what was added, and ends the pipeline. err is the caller's error: if it is
// not nil, the rest is not packed. finish returns the first error of the pipeline, or err
// if it has none.
func (l *pipeline) finish(err error) error {
	switch {
	case err != nil:
		l.cancel(err)
	case l.begun:
		l.flush()
	case l.block != nil: // a small state is in one block: to hand it to other goroutines takes longer
		l.prepare(l.block)
		err = l.packBlock(l.block)
	}
	close(l.queue)
	defer l.cancel(nil)
	own := l.group.Wait()
	l.keepSmall()
	l.packer.memory.blocks.Release(l.taken)
	if own != nil {
		return own
	}
	return err
}

// prepare hashes the pieces of a block, and compresses those that are new.
func (l *pipeline) prepare(b *block) {
	pays := sampler{mode: l.mode}
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

// A sampler decides whether compressing the next piece of a block is worth trying, from
// the results with earlier pieces. The encoder itself gives up early on data without any
// repetition. It does not give up on data with a little of it, such as the tables of a
// database that compresses them: there it took 4 s for each GiB to save a twentieth.
type sampler struct {
	mode          Compression
	before, after int // size of the pieces that were tried, before and after compression
	skipped       int // how many pieces were skipped since the last one that was tried
}

const (
	sampleMin  = 64 << 10 // how many bytes are tried before anything is skipped
	sampleGain = 8        // compression is worth it if it saves one byte in so many
	sampleSkip = 7        // if it is not, how many pieces are skipped before the next try
)

func (t *sampler) worthTrying() bool {
	if t.mode != CompressionAuto {
		return t.mode == CompressionZstd
	}
	if t.before < sampleMin || (t.before-t.after)*sampleGain >= t.before || t.skipped == sampleSkip {
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
		if err := l.packBlock(b); err != nil {
			return err
		}
	}
	return nil
}

// packBlock packs a block that is prepared.
func (l *pipeline) packBlock(b *block) error {
	var bytes int64
	for i := range b.pieces {
		p := &b.pieces[i]
		if err := l.pack(p); err != nil {
			return err
		}
		if !p.again {
			bytes += int64(len(p.data)) * int64(1+p.more)
		}
	}
	l.meter.add(Progress{Bytes: bytes})
	if b.packed != nil {
		close(b.packed)
	}
	l.free <- b
	return nil
}

func (l *pipeline) pack(p *piece) (err error) {
	if !p.known && !p.again { // an equal piece may have been packed since prepare
		p.id, p.known = l.find(p.hash)
	}
	if !p.known {
		if p.id, err = l.packer.add(p.hash, len(p.data), p.encoding, p.stored); err != nil {
			return err
		}
	}
	for range 1 + p.more {
		*p.to = append(*p.to, p.id)
	}
	return nil
}
