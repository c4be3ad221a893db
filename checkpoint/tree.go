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
	nodes []*node
}

// below returns the tree of what is in a directory, as if that were the root.
func (t *tree) below(dir string) (*tree, error) {
	if dir == "." {
		return t, nil
	}
	part := &tree{Catalog: t.Catalog}
	for _, of := range t.nodes {
		n := *of
		below, ok := strings.CutPrefix(n.Path, dir+"/")
		switch {
		case n.Path == dir && n.Mode.IsDir():
			below = "."
		case !ok:
			continue
		}
		n.Path = below
		part.nodes = append(part.nodes, &n)
	}
	if len(part.nodes) == 0 {
		return nil, fmt.Errorf("there is no directory %q in the state; 'holdfast show' lists what there is: %w", dir, fs.ErrNotExist)
	}
	return part, nil
}

// tree loads a checkpoint's tree with all of its tables.
func (c *Checkpoint) tree(ctx context.Context) (*tree, error) {
	l, err := c.newLoader()
	if err != nil {
		return nil, err
	}
	t := &tree{Catalog: l.catalog}
	err = l.entries(ctx, func(_ *leaf, e *format.Entry) error {
		n, err := l.node(e)
		t.nodes = append(t.nodes, &n)
		return err
	})
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
