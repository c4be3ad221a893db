package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/cut"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file keeps dead space and the number of segments within bounds. What a
// checkpoint needs of a segment that is not worth keeping for it is stored
// again, with the new data. So of every segment that a checkpoint names, at
// least half was needed when it was named, and the number of segments is at
// most four times what full ones would be, and some tens.
//
// The bytes come from the state itself, or from the inline data, which is in
// memory: never from the store, where they would cost requests and may be
// damaged. A stream goes by but once, so for a stream it is decided beforehand,
// by what base needs, which chunks are stored again as they come: what becomes
// needless with one checkpoint of it is made up for with the next.

const (
	// smallShare of a full segment's size is what is not small any more.
	smallShare = 4
	// maxSmall is how many small segments of about the same size there may be;
	// together, they become one that is at least as large as all of them. So a
	// byte is moved a few times at most for being in a small segment.
	maxSmall = 16
)

// repack stores again what the new checkpoint needs of segments of base that
// are not worth keeping.
func (b *builder) repack(ctx context.Context, l *pipeline) error {
	if b.base.tree == nil || b.walk.open == nil {
		return nil
	}
	if err := l.wait(); err != nil { // then all lists are complete
		return err
	}
	any := len(b.walk.streams) > 0 // for which segments were chosen before
	for b.choose(b.needed()) {
		any = true // what moves is listed anew, so that less may be needed yet
	}
	if !any {
		return nil
	}
	m := repacker{builder: b, l: l, at: make(map[catalog.ID]int)}
	for i := range b.walk.nodes {
		n := &b.walk.nodes[i]
		if b.walk.seen[i].made {
			continue // a stream goes by but once
		}
		if err := b.walk.fail(n.Path, m.store(ctx, n)); err != nil {
			return err
		}
	}
	if err := l.wait(); err != nil {
		return err
	}
	for i := range b.walk.nodes {
		n := &b.walk.nodes[i]
		if err := b.walk.fail(n.Path, m.replace(n)); err != nil {
			return err
		}
	}
	return nil
}

// needed returns what the new checkpoint will need, as far as it is known by now.
func (b *builder) needed() *catalog.Used {
	used := new(catalog.Used)
	for i := range b.walk.nodes {
		b.catalog.Use(used, b.walk.nodes[i].chunks)
		b.catalog.Use(used, b.walk.nodes[i].table)
	}
	b.catalog.Use(used, b.listed())
	b.catalog.Use(used, b.base.tree.table) // a thirtieth of the list: it makes no difference
	return used
}

// listed returns the chunks of base's list of files that the new list will have,
// too. Where there are many small files, the list is most of what there is.
func (b *builder) listed() (ids []catalog.ID) {
	t := &tree{Catalog: b.catalog}
	var enc format.TreeEncoder
	for i := range b.walk.nodes {
		n := b.walk.nodes[i]
		if n.table == nil && len(n.chunks) > format.MaxEntryChunks {
			n.table = n.chunks[:1] // it has another table than before, whichever
		}
		e := t.entry(&n)
		if slices.ContainsFunc(n.chunks, b.isSparse) || slices.ContainsFunc(n.table, b.isSparse) {
			e.ModTime = e.ModTime.Add(1) // it will say something else, whatever
		}
		if enc.Add(e) != nil {
			return nil // which will be found out again
		}
	}
	for data := enc.Bytes(); len(data) > 0; {
		k := cut.Meta.Next(data, true)
		if id, ok := b.catalog.Find(format.Sum(data[:k])); ok {
			ids = append(ids, id)
		}
		data = data[k:]
	}
	return ids
}

// choose finds out which segments of base are not worth keeping for what is
// used of them, beside those that it has chosen already: those of which less
// than half is used, the inline data, which is in no segment, and small ones of
// which there are many. It reports whether it has chosen one of which anything
// is used.
func (b *builder) choose(used *catalog.Used) (any bool) {
	segments := b.catalog.Segments()[:b.mark.Segments]
	if b.sparse == nil {
		b.sparse = make([]bool, len(segments))
	}
	crowds := make(map[int][]int) // small segments, by about how small
	for i, s := range segments {
		live := used.Bytes[i]
		switch {
		case b.sparse[i]:
		case s.ID == format.SegmentID{} || 2*live < s.Size:
			b.sparse[i] = true
			any = any || live > 0
		case live < int64(b.packer.size/smallShare):
			c := magnitude(live)
			crowds[c] = append(crowds[c], i)
		}
	}
	for _, list := range crowds {
		if len(list) < maxSmall {
			continue
		}
		any = true
		for _, i := range list {
			b.sparse[i] = true
		}
	}
	return any
}

// magnitude counts n's digits to the base of crowd.
func magnitude(n int64) (digits int) {
	for ; n > 0; n /= maxSmall {
		digits++
	}
	return digits
}

// isSparse reports whether a chunk lies in a segment that is not worth keeping.
func (b *builder) isSparse(id catalog.ID) bool {
	s := b.catalog.SegmentOf(id)
	return s < len(b.sparse) && b.sparse[s]
}

// find returns the chunk with a hash, if it is worth keeping where it lies.
func (b *builder) find(h format.Hash) (catalog.ID, bool) {
	id, ok := b.catalog.Find(h)
	return id, ok && !b.isSparse(id)
}

// A repacker stores chunks again.
type repacker struct {
	*builder
	l     *pipeline
	at    map[catalog.ID]int // of the chunks to be replaced, in moved
	moved []catalog.ID
}

// store stores a file's chunks again that lie in sparse segments.
func (m *repacker) store(ctx context.Context, n *node) error {
	r := rereader{fsys: m.walk.fsys, name: n.Path}
	defer r.close()
	var offset int64
	for _, id := range n.chunks {
		c := m.catalog.Chunk(id)
		if _, done := m.at[id]; !done && m.isSparse(id) {
			data, err := m.read(ctx, &r, offset, &c)
			if err != nil {
				return err
			}
			m.at[id] = len(m.at)
			if err := m.l.again(data, &m.moved); err != nil {
				return err
			}
		}
		offset += c.Size
	}
	return nil
}

// read returns the data of a chunk of base, which is at an offset in a file.
func (m *repacker) read(ctx context.Context, r *rereader, offset int64, c *format.Chunk) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.Segment == (format.SegmentID{}) {
		return m.base.read(ctx, c)
	}
	data := make([]byte, c.Size)
	err := r.readAt(data, offset)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = m.other(r.name) // it was longer before
	}
	return data, err
}

// other says that a file is not what it was taken to be.
func (m *repacker) other(path string) error {
	if m.walk.isImmutable(path) {
		return fmt.Errorf("%w: it was declared immutable, and is not what it was; have it reread", ErrChanged)
	}
	return errWritten
}

// A rereader reads parts of a file, in order. It opens the file when it has to.
type rereader struct {
	fsys fs.FS
	name string
	file fs.File
	pos  int64 // how far it was read, if it can only be read from the beginning on
}

func (r *rereader) readAt(p []byte, offset int64) (err error) {
	if r.file == nil {
		if r.file, _, err = openRegular(r.fsys, r.name); err != nil {
			return err
		}
	}
	if at, ok := r.file.(io.ReaderAt); ok {
		_, err := io.ReadFull(io.NewSectionReader(at, offset, int64(len(p))), p)
		return err
	}
	if _, err := io.CopyN(io.Discard, r.file, offset-r.pos); err != nil {
		return err
	}
	n, err := io.ReadFull(r.file, p)
	r.pos = offset + int64(n)
	return err
}

func (r *rereader) close() {
	if r.file != nil {
		_ = r.file.Close() // it was only read
	}
}

// replace makes a file's list name the chunks that were stored again.
func (m *repacker) replace(n *node) error {
	shared := true // with base's tree
	for i, id := range n.chunks {
		at, ok := m.at[id]
		if !ok {
			continue
		}
		if m.catalog.Chunk(id).Hash != m.catalog.Chunk(m.moved[at]).Hash {
			return m.other(n.Path)
		}
		if shared {
			n.chunks, shared = slices.Clone(n.chunks), false
		}
		n.chunks[i] = m.moved[at]
	}
	if !shared || slices.ContainsFunc(n.table, m.isSparse) {
		n.table = nil // it is another one now
	}
	return nil
}
