package checkpoint

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A tree is a checkpoint's state in memory, without the data: its files, and
// where each chunk of them lies.
type tree struct {
	*catalog.Catalog
	nodes []node
	list  []catalog.ID // the chunks of the encoded list of nodes
	table []catalog.ID // if that has one that is stored
}

// need returns what the tree needs of each segment.
func (t *tree) need() *catalog.Used {
	used := new(catalog.Used)
	for i := range t.nodes {
		t.Use(used, t.nodes[i].chunks)
		t.Use(used, t.nodes[i].table)
	}
	t.Use(used, t.list)
	t.Use(used, t.table)
	return used
}

// forget makes the catalog forget what the tree does not need.
func (t *tree) forget() {
	renumber := t.Keep(t.need())
	for i := range t.nodes {
		renumber(t.nodes[i].chunks)
		renumber(t.nodes[i].table)
	}
	renumber(t.list)
	renumber(t.table)
}

// entry returns a node as it is stored.
func (t *tree) entry(n *node) *format.Entry {
	e := n.Entry
	if n.table != nil {
		e.Table = t.places(n.table)
	} else {
		e.Chunks = t.places(n.chunks)
	}
	return &e
}

// places returns the chunks of a list.
func (t *tree) places(list []catalog.ID) []format.Chunk {
	chunks := make([]format.Chunk, len(list))
	for i, id := range list {
		chunks[i] = t.Chunk(id)
	}
	return chunks
}

// tree loads a checkpoint's tree with all of its tables.
func (c *Checkpoint) tree(ctx context.Context) (*tree, error) {
	l, err := c.newLoader()
	if err != nil {
		return nil, err
	}
	entries, err := l.entries(ctx)
	if err != nil {
		return nil, err
	}
	l.tree.nodes = make([]node, len(entries))
	for i, e := range entries {
		chunks, table := l.addAll(e.Chunks), l.addAll(e.Table)
		e.Chunks, e.Table = nil, nil
		l.tree.nodes[i] = node{Entry: e, chunks: chunks, table: table}
	}
	if err := l.tables(ctx); err != nil {
		return nil, err // and no tree whose files lack their chunks
	}
	return l.tree, nil
}

// A loader makes a tree of what a checkpoint's content names.
type loader struct {
	c       *Checkpoint
	tree    *tree
	places  format.Places
	numbers map[format.SegmentID]int // of segments in the catalog
}

func (c *Checkpoint) newLoader() (*loader, error) {
	places, err := c.content.Places()
	if err != nil {
		return nil, c.damaged(err)
	}
	l := &loader{c: c, places: places, numbers: make(map[format.SegmentID]int)}
	l.tree = &tree{Catalog: catalog.New(0)}
	if len(c.content.Inline) > 0 {
		l.numbers[format.SegmentID{}] = l.tree.AddSegment(format.Segment{Size: int64(len(c.content.Inline))})
	}
	for _, s := range c.content.Segments {
		l.numbers[s.ID] = l.tree.AddSegment(s)
	}
	return l, nil
}

// add adds a chunk, which was checked, to the catalog and to a list.
func (l *loader) add(list *[]catalog.ID, ch *format.Chunk) {
	id, ok := l.tree.Find(ch.Hash)
	if !ok || l.tree.Chunk(id) != *ch {
		id = l.tree.Add(l.numbers[ch.Segment], ch)
	}
	*list = append(*list, id)
}

func (l *loader) addAll(chunks []format.Chunk) []catalog.ID {
	if len(chunks) == 0 {
		return nil
	}
	list := make([]catalog.ID, 0, len(chunks))
	for i := range chunks {
		l.add(&list, &chunks[i])
	}
	return list
}

// entries reads the list of files.
func (l *loader) entries(ctx context.Context) ([]format.Entry, error) {
	if err := l.list(ctx); err != nil {
		return nil, err
	}
	data, err := l.c.join(ctx, l.tree.Catalog, l.tree.list)
	if err != nil {
		return nil, err
	}
	entries, err := format.DecodeTree(data)
	if err != nil {
		return nil, l.c.damaged(err)
	}
	for i := range entries {
		for _, chunks := range [][]format.Chunk{entries[i].Chunks, entries[i].Table} {
			if err := l.check(chunks); err != nil {
				return nil, l.c.damaged(fmt.Errorf("file %q: %w", entries[i].Path, err))
			}
		}
	}
	return entries, nil
}

// list finds out what chunks the list of files has.
func (l *loader) list(ctx context.Context) error {
	c := l.c.content
	chunks := l.addAll(c.Tree) // which were checked with the manifest
	if c.TreeSize == 0 {
		l.tree.list = chunks
		return nil
	}
	l.tree.table = chunks
	data, err := l.c.join(ctx, l.tree.Catalog, chunks)
	if err != nil {
		return err
	}
	if l.tree.list, err = l.table(data, c.TreeSize); err != nil {
		return l.c.damaged(fmt.Errorf("table of the list of files: %w", err))
	}
	return nil
}

// check makes sure that chunks lie where the checkpoint says that its data is.
func (l *loader) check(chunks []format.Chunk) error {
	for i := range chunks {
		if err := l.places.Check(&chunks[i]); err != nil {
			return err
		}
	}
	return nil
}

// tables reads the tables of all files, several files at a time.
func (l *loader) tables(ctx context.Context) error {
	nodes := l.tree.nodes
	for len(nodes) > 0 {
		n, size := 0, int64(0)
		var list []catalog.ID
		for n < len(nodes) && (size == 0 || size < tablesSize) {
			for _, id := range nodes[n].table {
				size += l.tree.Size(id)
			}
			list = append(list, nodes[n].table...)
			n++
		}
		if err := l.someTables(ctx, nodes[:n], list); err != nil {
			return err
		}
		nodes = nodes[n:]
	}
	return nil
}

// tablesSize is how many bytes of tables are read at a time, if no single one
// is larger.
const tablesSize = 8 << 20

const (
	tableEntry = 35      // what most chunks take in a table, in bytes
	maxRoom    = 1 << 18 // chunks that room is made for before they are seen
)

func (l *loader) someTables(ctx context.Context, nodes []node, list []catalog.ID) error {
	data, err := l.c.join(ctx, l.tree.Catalog, list)
	if err != nil {
		return err
	}
	l.tree.Grow(min(len(data)/tableEntry, maxRoom)) // of a sparse file, most are the same
	for i := range nodes {
		n := &nodes[i]
		size := 0
		for _, id := range n.table {
			size += int(l.tree.Size(id))
		}
		if size == 0 {
			continue
		}
		var err error
		if n.chunks, err = l.table(data[:size], n.Size); err != nil {
			return l.c.damaged(fmt.Errorf("table of file %q: %w", n.Path, err))
		}
		data = data[size:]
	}
	return nil
}

// table adds the chunks in a table to the catalog, and returns them.
func (l *loader) table(data []byte, size int64) (list []catalog.ID, err error) {
	for ch, err := range format.DecodeTable(data, size) {
		if err == nil {
			err = l.places.Check(&ch)
		}
		if err != nil {
			return nil, err
		}
		l.add(&list, &ch)
	}
	return slices.Clip(list), nil
}

// damaged says which checkpoint it is that an error is about.
func (c *Checkpoint) damaged(err error) error {
	return fmt.Errorf("task %q, checkpoint %d: %w", c.Task, c.Seq, err)
}
