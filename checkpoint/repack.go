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

// This file limits dead space and the number of segments. Some segments are not worth
// keeping: most of their bytes are dead, or they are among many small ones. What a
// checkpoint needs of these is repacked: stored again with the new data. So of every
// segment that a checkpoint names, at least half was needed when it was named, as far as files
// in leaves that were not read do not share data, which is counted once for each. And the
// number of segments is at most four times that of full ones, plus some tens.
//
// The bytes come from the state itself, or from the inline data, which is in memory. They
// never come from the store, where reading them would cost requests, and they may be
// damaged. A stream can be read only once. So for a stream it is decided before it is
// read, by what base needs, which chunks are stored again when they come. What becomes
// dead with one checkpoint of a stream is repacked with the next.

const (
	// smallShare decides what a small segment is: one of which fewer bytes are needed than
	// this fraction, 1/smallShare, of a full segment.
	smallShare = 4
	// maxSmall is how many small segments of about the same size there may be. That many
	// are repacked into one that is at least as large as all of them together. So a byte is
	// repacked only a few times because it is in a small segment.
	maxSmall = 16
)

// repack stores again what the new checkpoint needs of segments of base that
// are not worth keeping.
func (b *builder) repack(ctx context.Context, l *pipeline) error {
	if b.base.tree == nil || b.scan.open == nil {
		return nil
	}
	if err := l.wait(); err != nil { // afterwards all lists of chunks are complete
		return err
	}
	any := len(b.scan.streams) > 0 // for streams, segments were chosen before
	for {
		needed, err := b.needed()
		if err != nil {
			return err
		}
		if !b.choose(needed) {
			break
		}
		any = true // the list of files changes too, so less of other segments may be needed
	}
	if !any {
		return nil
	}
	if err := b.openSparse(ctx); err != nil {
		return ofBase(err)
	}
	m := repacker{builder: b, l: l, at: make(map[catalog.ID]int)}
	for f := range b.all() {
		if f.seen.made {
			continue // a stream can be read only once
		}
		if err := b.scan.fail(f.Path, m.store(ctx, &f.node)); err != nil {
			return err
		}
	}
	if err := l.wait(); err != nil {
		return err
	}
	for f := range b.all() {
		if err := b.scan.fail(f.Path, m.replace(&f.node)); err != nil {
			return err
		}
	}
	return nil
}

// openSparse reads the leaves and tables that refer to segments which are not worth keeping.
func (b *builder) openSparse(ctx context.Context) error {
	sparse := make(map[format.SegmentID]bool)
	for i, s := range b.catalog.Segments()[:b.mark.Segments] {
		sparse[s.ID] = b.sparse[i]
	}
	uses := func(list []format.Use) bool {
		return slices.ContainsFunc(list, func(u format.Use) bool { return sparse[u.Segment] })
	}
	var leaves []int
	for i, l := range b.leaves() {
		if b.isKept(i) && (uses(l.Uses) || slices.ContainsFunc(l.chunks, b.isSparse)) {
			leaves = append(leaves, i)
		}
	}
	if err := b.open(ctx, leaves); err != nil {
		return err
	}
	var tables []*node
	for f := range b.all() {
		if f.isUnread() && (uses(f.Uses) || slices.ContainsFunc(f.table, b.isSparse)) {
			tables = append(tables, &f.node)
		}
	}
	return b.readTables(ctx, tables)
}

// isKept reports whether a leaf of base is in the new tree as it is, as far as is known.
func (b *builder) isKept(i int) bool {
	return b.scan.keeps(i) && b.opened[i] == nil
}

// needed returns the chunks of base that the new checkpoint will need, as far as is known
// by now.
func (b *builder) needed() (*catalog.Used, error) {
	c := b.base.tree.counter()
	for i := range b.leaves() {
		if b.isKept(i) {
			c.leaf(&b.leaves()[i])
		}
	}
	for f := range b.all() {
		c.node(&f.node)
	}
	listed, err := b.listed()
	c.Use(&c.used, listed)
	c.Use(&c.used, b.base.tree.list) // an estimate; it is a fiftieth of the leaves, so it hardly matters
	c.Use(&c.used, b.base.tree.table)
	return &c.used, err
}

// listed returns the chunks of base's leaves and tables that those which are made anew will have
// too. With many small files, most of the data is in leaves.
func (b *builder) listed() (ids []catalog.ID, err error) {
	entry := func(n *node) (*format.Entry, error) {
		e, table := b.expectedEntry(n)
		ids = append(ids, table...)
		return e, nil
	}
	err = b.eachLeaf(entry, func(int) {}, func(_ []*node, data []byte) error {
		leaf, _, _ := b.stored(data, true)
		ids = append(ids, leaf...)
		return nil
	})
	return ids, err
}

// stored cuts data of a leaf or a table as far as it can be cut. It returns the chunks that are
// stored already, whether that is all of them, and what is left. end says that nothing comes after
// data.
func (b *builder) stored(data []byte, end bool) (ids []catalog.ID, all bool, rest []byte) {
	all, rest = true, data
	for k := cut.Meta.Next(rest, end); k > 0; k = cut.Meta.Next(rest, end) {
		id, ok := b.catalog.Find(format.Sum(rest[:k]))
		if ok {
			ids = append(ids, id)
		}
		all = all && ok
		rest = rest[k:]
	}
	return ids, all, rest
}

// expectedEntry returns a node as it will be stored, or a stand-in if that is not known yet:
// an entry that is in no leaf of base. If it is to get a table, it also returns what is stored of that.
func (b *builder) expectedEntry(n *node) (_ *format.Entry, table []catalog.ID) {
	if n.getsTable() {
		e := n.Entry
		table, all := b.expectedTable(n)
		listed := table
		if !all {
			listed = n.chunks[:1]
		}
		uses := make(map[format.SegmentID]int64)
		b.addUses(uses, n.chunks)
		e.Table, e.Uses = b.catalog.Chunks(listed), sorted(uses)
		return &e, table
	}
	e := b.entry(n)
	if slices.ContainsFunc(n.chunks, b.isSparse) || slices.ContainsFunc(n.table, b.isSparse) {
		e.ModTime = e.ModTime.Add(1) // its chunks are stored again
	}
	return e, nil
}

// expectedTable returns the chunks that are stored already of the table that a file will get. It
// reports whether that is all of it, as if the file was read and had not changed.
func (b *builder) expectedTable(n *node) (ids []catalog.ID, all bool) {
	if slices.ContainsFunc(n.chunks, b.isSparse) {
		return nil, false // some are stored again, and lie elsewhere then
	}
	all = true
	_ = b.eachTablePart(n.chunks, func(data []byte, end bool) ([]byte, error) {
		part, ok, rest := b.stored(data, end)
		ids, all = append(ids, part...), all && ok
		return data[:copy(data, rest)], nil
	})
	return ids, all
}

// choose adds to b.sparse the segments of base that are not worth keeping: those of which
// less than half is used, the inline data, which is in no segment, and small ones if there
// are many. It reports whether it has added one of which anything is used.
func (b *builder) choose(used *catalog.Used) (any bool) {
	segments := b.catalog.Segments()[:b.mark.Segments]
	if b.sparse == nil {
		b.sparse = make([]bool, len(segments))
	}
	groups := make(map[int][]int) // small segments, by the magnitude of their size
	for i, s := range segments {
		live := used.Bytes[i]
		switch {
		case b.sparse[i]:
		case s.ID == format.SegmentID{} || 2*live < s.Size:
			b.sparse[i] = true
			any = any || live > 0
		case live < int64(b.packer.size/smallShare):
			c := magnitude(live)
			groups[c] = append(groups[c], i)
		}
	}
	for _, list := range groups {
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

// magnitude returns how many digits n has to the base of maxSmall.
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

// find returns the chunk with a hash, if its segment is worth keeping.
func (b *builder) find(h format.Hash) (catalog.ID, bool) {
	id, ok := b.catalog.Find(h)
	return id, ok && !b.isSparse(id)
}

// A repacker stores chunks again.
type repacker struct {
	*builder
	l     *pipeline
	at    map[catalog.ID]int // by old chunk: the index of the new one in moved
	moved []catalog.ID       // the new chunks
}

// store stores those of a file's chunks again that are in sparse segments.
func (m *repacker) store(ctx context.Context, n *node) error {
	r := rereader{fsys: m.scan.fsys, name: n.Path}
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
		err = m.other(r.name) // the file has become shorter
	}
	return data, err
}

// other returns the error for a file whose content is not what it was assumed to be.
func (m *repacker) other(path string) error {
	if m.scan.isImmutable(path) {
		return fmt.Errorf("%w: it was declared immutable, and is not what it was; have it reread", ErrChanged)
	}
	return errWritten
}

// A rereader reads parts of a file, in order. It opens the file at the first read.
type rereader struct {
	fsys fs.FS
	name string
	file fs.File
	pos  int64 // how far the file was read, if it has no ReadAt
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

// replace puts the new chunks, which store has stored, into a file's list of chunks.
func (m *repacker) replace(n *node) error {
	shared := true // n.chunks may be the same slice as in base's tree
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
		n.table, n.Uses = nil, nil // the table lists other chunks now, so it is made again
	}
	return nil
}
