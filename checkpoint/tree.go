package checkpoint

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

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

// below returns the tree of what is in a directory, as if that were the root.
func (t *tree) below(dir string) (*tree, error) {
	if dir == "." {
		return t, nil
	}
	part := &tree{Catalog: t.Catalog}
	for i := range t.nodes {
		n := t.nodes[i]
		below, ok := strings.CutPrefix(n.Path, dir+"/")
		switch {
		case n.Path == dir && n.Mode.IsDir():
			below = "."
		case !ok:
			continue
		}
		n.Path = below
		part.nodes = append(part.nodes, n)
	}
	if len(part.nodes) == 0 {
		return nil, fmt.Errorf("there is no directory %q in the state; 'holdfast show' lists what there is: %w", dir, fs.ErrNotExist)
	}
	return part, nil
}

// forget makes the catalog forget what the tree does not need.
func (t *tree) forget() {
	renumber := t.Keep(t.need())
	seen := make(map[*catalog.ID]bool) // of lists that files may share
	for i := range t.nodes {
		n := &t.nodes[i]
		renumber(n.table)
		if len(n.chunks) > format.MaxEntryChunks {
			if seen[&n.chunks[0]] {
				continue
			}
			seen[&n.chunks[0]] = true
		}
		renumber(n.chunks)
	}
	renumber(t.list)
	renumber(t.table)
}

// entry returns a node as it is stored.
func (t *tree) entry(n *node) *format.Entry {
	e := n.Entry
	if n.table != nil {
		e.Table = t.chunkList(n.table)
	} else {
		e.Chunks = t.chunkList(n.chunks)
	}
	return &e
}

// places returns the chunks of a list.
func (t *tree) chunkList(list []catalog.ID) []format.Chunk {
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
	t := &tree{Catalog: l.catalog}
	err = l.entries(ctx, func(e *format.Entry) error {
		n, err := l.node(e)
		t.nodes = append(t.nodes, n)
		return err
	})
	t.list, t.table = l.list, l.table
	if err == nil {
		err = l.tables(ctx, t.nodes)
	}
	if err != nil {
		return nil, err // and no tree whose files lack their chunks
	}
	return t, nil
}

// damaged says which checkpoint it is that an error is about.
func (c *Checkpoint) damaged(err error) error {
	return fmt.Errorf("task %q, checkpoint %d: %w", c.Task, c.Seq, err)
}
