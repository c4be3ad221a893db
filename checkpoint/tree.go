package checkpoint

import (
	"fmt"
	"strings"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A tree is a checkpoint's state, or a part of it, in memory without the data: its files, and
// where each chunk of them lies.
type tree struct {
	*catalog.Catalog
	nodes []*node
}

// below returns the tree of what is in a directory, as if that were the root.
func (t *tree) below(dir string) *tree {
	if dir == "." {
		return t
	}
	part := &tree{Catalog: t.Catalog}
	for _, of := range t.nodes {
		if path, ok := pathBelow(dir, &of.Entry); ok {
			n := *of
			n.Path = path
			part.nodes = append(part.nodes, &n)
		}
	}
	return part
}

// pathBelow returns the path of an entry if dir were the root. It reports whether the entry is
// dir itself, or in it.
func pathBelow(dir string, e *format.Entry) (path string, ok bool) {
	switch {
	case dir == ".":
		return e.Path, true
	case e.Path == dir && e.Mode.IsDir():
		return ".", true
	}
	return strings.CutPrefix(e.Path, dir+"/")
}

// damaged says which checkpoint it is that an error is about.
func (c *Checkpoint) damaged(err error) error {
	return fmt.Errorf("task %q, checkpoint %d: %w", c.Task, c.Seq, err)
}
