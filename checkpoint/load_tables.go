package checkpoint

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A table is one that is being read: a file's, or that of the list of files.
type table struct {
	path    string // the file's; "" is the list of files
	decoder *format.TableDecoder
	cut     format.CutChecker
	found   func([]catalog.ID) // is told of the file's chunks, some at a time
}

// newTable returns the table of size bytes that were cut in some way.
func newTable(path string, size int64, cut format.Cut, found func([]catalog.ID)) *table {
	return &table{path, format.NewTableDecoder(size), format.CutChecker{Cut: cut}, found}
}

// A tableReader reads tables, small ones together and large ones in parts. What was
// added is read when end returns.
type tableReader struct {
	l     *loader
	batch []tablePart  // what is read together
	size  int64        // of it, in bytes
	ids   []catalog.ID // these two are kept for their memory
	buf   []byte
}

// A tablePart is some of the chunks that a table consists of.
type tablePart struct {
	*table
	chunks []catalog.ID
	size   int64
	last   bool
}

// add reads, sooner or later, the table that consists of some chunks.
func (r *tableReader) add(ctx context.Context, chunks []catalog.ID, t *table) error {
	for len(chunks) > 0 {
		n, size := 0, int64(0)
		for n < len(chunks) && r.size+size < partSize {
			size += r.l.catalog.Size(chunks[n])
			n++
		}
		r.batch = append(r.batch, tablePart{t, chunks[:n], size, n == len(chunks)})
		r.size += size
		chunks = chunks[n:]
		if r.size < partSize {
			continue
		}
		if err := r.end(ctx); err != nil {
			return err
		}
	}
	return nil
}

const (
	tableEntry = 35      // what most chunks take in a table, in bytes
	maxRoom    = 1 << 18 // chunks that room is made for before they are seen
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
	r.l.catalog.Grow(min(len(data)/tableEntry, maxRoom)) // of a sparse file, most are the same
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
	for ch, err := range chunks {
		if err == nil {
			err = t.cut.Check(&ch)
		}
		if err != nil {
			return err
		}
		id, err := r.l.add(&ch)
		if err != nil {
			return err
		}
		r.ids = append(r.ids, id)
	}
	return nil
}

func (t *table) fail(c *Checkpoint, err error) error {
	if t.path == "" {
		return c.damaged(fmt.Errorf("table of the list of files: %w", err))
	}
	return c.damaged(fmt.Errorf("table of file %q: %w", t.path, err))
}

// A tableID is the same for two files whose tables are the same.
type tableID format.Hash

func idOf(n *node) tableID {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+4*len(n.table)), uint64(n.Size))
	for _, id := range n.table {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return tableID(format.Sum(b))
}

// maxChunks bounds the chunks of all files of a state, each as often as it comes: a
// restore counts them in 32 bits. It is 17 TB at the very least, and some 70 TB
// mostly.
const maxChunks = math.MaxUint32

// tables reads the tables of all files, and says of each file what chunks it has.
// Files with one table have one list of chunks, if it is a long one.
func (l *loader) tables(ctx context.Context, nodes []node) error {
	r := tableReader{l: l}
	first := make(map[tableID]*node)
	var others []*node
	for i := range nodes {
		n := &nodes[i]
		if n.table == nil {
			continue
		}
		id := idOf(n)
		if first[id] != nil {
			others = append(others, n)
			continue
		}
		first[id] = n
		found := func(ids []catalog.ID) { n.chunks = append(n.chunks, ids...) }
		if err := r.add(ctx, n.table, newTable(n.Path, n.Size, format.DataCut, found)); err != nil {
			return err
		}
	}
	if err := r.end(ctx); err != nil {
		return err
	}
	for _, n := range others {
		n.chunks = first[idOf(n)].chunks
		if len(n.chunks) <= format.MaxEntryChunks {
			n.chunks = slices.Clone(n.chunks)
		}
	}
	return l.count(nodes)
}

// count makes sure that the chunks of all files can be counted.
func (l *loader) count(nodes []node) error {
	n := int64(0) // an int has 32 bits on some machines
	for i := range nodes {
		if n += int64(len(nodes[i].chunks)); n > maxChunks {
			return l.c.damaged(fmt.Errorf("%w: more than %d chunks", ErrCorrupt, uint32(maxChunks)))
		}
	}
	return nil
}

// A survey is the chunks of a checkpoint, for who need not know which file each
// belongs to. It takes memory for the chunks alone, whatever files there are.
type survey struct {
	*catalog.Catalog
	data *catalog.Used // those of files
}

// survey reads the list of files, and all tables.
func (c *Checkpoint) survey(ctx context.Context) (*survey, error) {
	l, err := c.newLoader()
	if err != nil {
		return nil, err
	}
	s := &survey{l.catalog, new(catalog.Used)}
	found := func(ids []catalog.ID) { s.Use(s.data, ids) }
	r := tableReader{l: l}
	seen := make(map[tableID]bool)
	err = l.entries(ctx, func(e *format.Entry) error {
		n, err := l.node(e)
		if err != nil || n.table == nil {
			found(n.chunks)
			return err
		}
		if id := idOf(&n); !seen[id] {
			seen[id] = true
			return r.add(ctx, n.table, newTable(n.Path, n.Size, format.DataCut, found))
		}
		return nil
	})
	if err == nil {
		err = r.end(ctx)
	}
	return s, err
}
