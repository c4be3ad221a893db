package checkpoint

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A table is a stored list of chunks that is being read: those of a large file, or those
// of the list of leaves.
type table struct {
	path    string // the file's; "" is the list of leaves
	decoder *format.TableDecoder
	cut     format.CutChecker
	found   func([]catalog.ID) // is called with the chunks that the table lists, some at a time
}

// newTable returns the table of a file of size bytes. cut says how files of its kind are
// divided into chunks.
func newTable(path string, size int64, cut format.Cut, found func([]catalog.ID)) *table {
	return &table{path, format.NewTableDecoder(size), format.CutChecker{Cut: cut}, found}
}

// A tableReader reads tables, several small ones together, and large ones in parts. All
// tables that were added have been read when end returns.
type tableReader struct {
	l     *loader
	batch []tablePart  // what is to be read together
	size  int64        // of batch, in bytes
	ids   []catalog.ID // kept to use its memory again
	buf   []byte       // likewise
}

// A tablePart is some of the chunks that a table consists of.
type tablePart struct {
	*table
	chunks []catalog.ID
	size   int64
	last   bool
}

// add adds a table, which is stored in the given chunks. It may be read at once, or by a
// later call of add or end.
func (r *tableReader) add(ctx context.Context, chunks []catalog.ID, t *table) error {
	for len(chunks) > 0 {
		n, size := 0, int64(0)
		for n < len(chunks) && r.size+size < r.l.partSize() {
			size += r.l.catalog.Size(chunks[n])
			n++
		}
		r.batch = append(r.batch, tablePart{t, chunks[:n], size, n == len(chunks)})
		r.size += size
		chunks = chunks[n:]
		if r.size < r.l.partSize() {
			continue
		}
		if err := r.end(ctx); err != nil {
			return err
		}
	}
	return nil
}

const (
	tableEntry = 35      // size of most entries of a table, in bytes
	maxRoom    = 1 << 18 // bounds the chunks for which memory is allocated in advance
)

// end reads what was added.
func (r *tableReader) end(ctx context.Context) error {
	var chunks []catalog.ID
	for i := range r.batch {
		chunks = append(chunks, r.batch[i].chunks...)
	}
	data, err := r.l.c.join(ctx, r.l.catalog, chunks, r.buf)
	if err != nil {
		return err
	}
	r.buf = data
	r.l.catalog.Grow(min(len(data)/tableEntry, maxRoom)) // a sparse file needs less: most of its chunks are equal
	for i := range r.batch {
		p := &r.batch[i]
		if err := r.decode(p, data[:p.size]); err != nil {
			return p.fail(r.l.c, err)
		}
		data = data[p.size:]
	}
	r.batch, r.size = r.batch[:0], 0
	return nil
}

// decode adds the chunks in a part of a table to the catalog.
func (r *tableReader) decode(p *tablePart, data []byte) error {
	r.ids = r.ids[:0]
	err := r.addEach(p.table, p.decoder.Add(data))
	if err == nil && p.last {
		err = r.addEach(p.table, p.decoder.End())
	}
	if err == nil {
		p.found(r.ids)
	}
	return err
}

func (r *tableReader) addEach(t *table, chunks iter.Seq2[format.Chunk, error]) error {
	var last format.Chunk
	var id catalog.ID
	for ch, err := range chunks {
		if err == nil {
			err = t.cut.Check(&ch)
		}
		if err == nil && ch != last { // a hole has the same again and again
			id, err = r.l.add(&ch)
			last = ch
		}
		if err != nil {
			return err
		}
		r.ids = append(r.ids, id)
	}
	return nil
}

func (t *table) fail(c *Checkpoint, err error) error {
	if t.path == "" {
		return c.damaged(fmt.Errorf("table of the list of leaves: %w", err))
	}
	return c.damaged(fmt.Errorf("table of file %q: %w", t.path, err))
}

// A tableID identifies a table by its content: two files with equal tables have the same.
type tableID format.Hash

func idOf(n *node) tableID {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+4*len(n.table)), uint64(n.Size))
	for _, id := range n.table {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return tableID(format.Sum(b))
}

// maxChunks bounds the sum of the chunks of all files of a state, because a restore counts
// them in 32 bits. A state of that many chunks has at least 17 TB, and usually some 70 TB.
const maxChunks = math.MaxUint32

// tables reads the tables of all files, and sets each file's chunks: of all of them, or if it
// fails of none. Files with equal tables share one list of chunks in memory, if it is a long
// one.
func (l *loader) tables(ctx context.Context, nodes []*node) error {
	r := tableReader{l: l}
	chunks := make(map[tableID][]catalog.ID)
	for _, n := range nodes {
		if n.table == nil {
			continue
		}
		id := idOf(n)
		if _, begun := chunks[id]; begun {
			continue
		}
		chunks[id] = nil
		found := func(ids []catalog.ID) { chunks[id] = append(chunks[id], ids...) }
		if err := r.add(ctx, n.table, newTable(n.Path, n.Size, format.DataCut, found)); err != nil {
			return err
		}
	}
	if err := r.end(ctx); err != nil {
		return err
	}
	for _, n := range nodes {
		if n.table == nil {
			continue
		}
		n.chunks = chunks[idOf(n)]
		if len(n.chunks) <= format.MaxEntryChunks {
			n.chunks = slices.Clone(n.chunks)
		}
	}
	return l.count(nodes)
}

// count makes sure that the chunks of all files can be counted.
func (l *loader) count(nodes []*node) error {
	sum := int64(0) // an int has 32 bits on some machines
	for _, n := range nodes {
		if sum += int64(len(n.chunks)); sum > maxChunks {
			return l.c.damaged(fmt.Errorf("%w: more than %d chunks", ErrCorrupt, uint32(maxChunks)))
		}
	}
	return nil
}

// A survey is the set of a checkpoint's chunks, without which file has which. It takes
// memory for the chunks alone, however many files there are.
type survey struct {
	*catalog.Catalog
	data *catalog.Used // the chunks that are data of files
}

// survey reads the list of files, and all tables. It makes sure that leaves and files use no
// segment that they do not say: a save relies on that.
func (c *Checkpoint) survey(ctx context.Context) (*survey, error) {
	l, err := c.newLoader()
	if err != nil {
		return nil, err
	}
	s := &survey{l.catalog, new(catalog.Used)}
	r := tableReader{l: l}
	tables := make(map[tableID]*surveyed)
	var wrong error
	err = l.entries(ctx, func(of *leaf, e *format.Entry) error {
		n, err := l.node(e)
		if err != nil {
			return err
		}
		s.Use(s.data, n.chunks)
		for _, ids := range [][]catalog.ID{n.chunks, n.table} {
			wrong = cmp.Or(wrong, s.compare("leaf", of.First, of.Uses, ids))
		}
		if n.table == nil {
			return nil
		}
		id := idOf(&n)
		t, seen := tables[id]
		if !seen {
			t = &surveyed{in: make(map[int]catalog.ID)}
			tables[id] = t
		}
		t.said = append(t.said, said{"leaf", of.First, of.Uses}, said{"file", n.Path, n.Uses})
		if seen {
			return nil
		}
		found := func(ids []catalog.ID) {
			s.Use(s.data, ids)
			for _, chunk := range ids {
				t.in[s.SegmentOf(chunk)] = chunk
			}
		}
		return r.add(ctx, n.table, newTable(n.Path, n.Size, format.DataCut, found))
	})
	if err == nil {
		err = r.end(ctx)
	}
	for _, t := range tables {
		ids := slices.Collect(maps.Values(t.in))
		for _, what := range t.said {
			wrong = cmp.Or(wrong, s.compare(what.kind, what.name, what.uses, ids))
		}
	}
	if err == nil && wrong != nil {
		err = c.damaged(wrong)
	}
	return s, err
}

// surveyed is what is known of a table: one chunk in each segment that it lists, and what the
// files that have it, and their leaves, say of their segments.
type surveyed struct {
	in   map[int]catalog.ID
	said []said
}

type said struct {
	kind, name string
	uses       []format.Use
}

// compare makes sure that chunks are in segments that a leaf or a file names.
func (s *survey) compare(kind, name string, uses []format.Use, ids []catalog.ID) error {
	for _, chunk := range ids {
		id := s.Segments()[s.SegmentOf(chunk)].ID
		if _, ok := slices.BinarySearchFunc(uses, id, func(u format.Use, id format.SegmentID) int { return u.Segment.Compare(id) }); !ok {
			return fmt.Errorf("%w: %s %q has data in segment %s, and does not say so", ErrCorrupt, kind, name, id)
		}
	}
	return nil
}
