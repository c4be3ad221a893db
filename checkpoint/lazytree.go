package checkpoint

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A lazyTree is a checkpoint's tree of which the leaves are read when they are needed: a
// save needs those in which something changed.
type lazyTree struct {
	*catalog.Catalog // of the chunks of all leaves, and of what was read
	leaves           []leaf
	list             []catalog.ID // the chunks of the list of leaves, if that is stored
	table            []catalog.ID // the chunks of the table that lists these, if there is one
}

// A leaf is a part of a tree.
type leaf struct {
	format.Leaf // its Chunks are not used
	chunks      []catalog.ID
	nodes       []*node // nil if they were not read
}

// lazyTree returns a checkpoint's tree, of which only the list of leaves was read.
func (c *Checkpoint) lazyTree(ctx context.Context) (*lazyTree, error) {
	l, err := c.newLoader()
	if err != nil {
		return nil, err
	}
	for _, s := range c.content.Segments {
		l.number(s.ID) // all segments of a baseline come before those of the new checkpoint
	}
	list, err := l.leaves(ctx)
	if err != nil {
		return nil, err
	}
	t := &lazyTree{Catalog: l.catalog, leaves: make([]leaf, len(list)), list: l.list, table: l.table}
	for i := range list {
		t.leaves[i].Leaf, t.leaves[i].Chunks = list[i], nil
		if t.leaves[i].chunks, err = l.addAll(list[i].Chunks); err == nil {
			err = l.checkUses(list[i].Uses, int64(list[i].Files))
		}
		if err != nil {
			return nil, c.damaged(fmt.Errorf("leaf %q: %w", list[i].First, err))
		}
	}
	return t, nil
}

// read reads those of some leaves that were not read yet.
func (t *lazyTree) read(ctx context.Context, c *Checkpoint, leaves []int) error {
	leaves = slices.DeleteFunc(slices.Clone(leaves), func(i int) bool { return t.leaves[i].nodes != nil })
	if len(leaves) == 0 {
		return nil
	}
	l, err := c.loaderIn(t.Catalog)
	if err != nil {
		return err
	}
	list := make([]*leaf, len(leaves))
	for k, i := range leaves {
		list[k] = &t.leaves[i]
	}
	nodes := make(map[*leaf][]*node) // kept only if all were read
	err = l.eachLeaf(ctx, list, nil, func(of *leaf, e *format.Entry) error {
		n, err := l.node(e)
		nodes[of] = append(nodes[of], &n)
		return err
	})
	if err != nil {
		return err
	}
	for of, list := range nodes {
		of.nodes = list
	}
	return nil
}

// readTables reads those tables of files that were not read yet.
func (t *lazyTree) readTables(ctx context.Context, c *Checkpoint, nodes []*node) error {
	nodes = slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return !n.isUnread() })
	if len(nodes) == 0 {
		return nil
	}
	l, err := c.loaderIn(t.Catalog)
	if err != nil {
		return err
	}
	return l.tables(ctx, nodes)
}

// readAll reads everything.
func (t *lazyTree) readAll(ctx context.Context, c *Checkpoint) error {
	all := make([]int, len(t.leaves))
	for i := range all {
		all[i] = i
	}
	if err := t.read(ctx, c, all); err != nil {
		return err
	}
	var nodes []*node
	for i := range t.leaves {
		nodes = append(nodes, t.leaves[i].nodes...)
	}
	return t.readTables(ctx, c, nodes)
}

// isUnread reports whether a file has a table that was not read.
func (n *node) isUnread() bool { return n.table != nil && n.chunks == nil }

// A counter finds out what is needed of each segment.
type counter struct {
	*catalog.Catalog
	used    catalog.Used
	numbers map[format.SegmentID]int
}

// counter returns one that knows the segments that there are so far.
func (t *lazyTree) counter() *counter {
	c := &counter{Catalog: t.Catalog, numbers: make(map[format.SegmentID]int)}
	for i, s := range t.Segments() {
		c.numbers[s.ID] = i
	}
	return c
}

// leaf counts a leaf and its files. What was not read is counted as the leaf says it.
func (c *counter) leaf(l *leaf) {
	c.Use(&c.used, l.chunks)
	if l.nodes == nil {
		c.uses(l.Uses)
	}
	for _, n := range l.nodes {
		c.node(n)
	}
}

func (c *counter) node(n *node) {
	c.Use(&c.used, n.table)
	c.Use(&c.used, n.chunks)
	if n.isUnread() {
		c.uses(n.Uses)
	}
}

func (c *counter) uses(list []format.Use) {
	for _, u := range list {
		if i, ok := c.numbers[u.Segment]; ok {
			c.UseBytes(&c.used, i, u.Bytes)
		}
	}
}

// need returns what the tree needs of each segment.
func (t *lazyTree) need() *catalog.Used {
	c := t.counter()
	for i := range t.leaves {
		c.leaf(&t.leaves[i])
	}
	c.Use(&c.used, t.list)
	c.Use(&c.used, t.table)
	return &c.used
}

// covered makes sure that segments are all that the tree needs.
func (t *lazyTree) covered(segments []format.Segment) error {
	has := map[format.SegmentID]bool{{}: true}
	for _, s := range segments {
		has[s.ID] = true
	}
	for i := range t.leaves {
		l := &t.leaves[i]
		for _, u := range l.Uses {
			if !has[u.Segment] {
				return fmt.Errorf("leaf %q needs segment %s, which the checkpoint would not name", l.First, u.Segment)
			}
		}
		for _, id := range l.chunks {
			if s := t.Segments()[t.SegmentOf(id)].ID; !has[s] {
				return fmt.Errorf("leaf %q is in segment %s, which the checkpoint would not name", l.First, s)
			}
		}
	}
	return nil
}

// What a file, and a chunk, of a tree take in memory, in bytes, and half as much again for
// garbage: TestMemoryOfABaseline compares.
const (
	nodeMemory  = 400
	chunkMemory = 100
)

// listMemory returns about how many bytes of memory it takes to read everything but the data.
func (c *Checkpoint) listMemory() int64 {
	return nodeMemory*int64(c.Files) + chunkMemory*(c.Bytes/chunkSize)
}

// chunkSize is the size of most chunks of files: see package cut.
const chunkSize = 16 << 10

// size returns about how many bytes of memory the tree takes.
func (t *lazyTree) size() int64 { return t.nodesSize() + chunkMemory*int64(t.Len()) }

func (t *lazyTree) nodesSize() int64 {
	nodes := 0
	for i := range t.leaves {
		nodes += len(t.leaves[i].nodes)
	}
	return nodeMemory * int64(nodes+len(t.leaves))
}

// forget makes the catalog forget what the tree does not need. If the tree takes more than
// most bytes, it forgets all leaves, too.
func (t *lazyTree) forget(most int64) {
	if t.size() > most {
		for i := range t.leaves {
			t.leaves[i].nodes = nil
		}
	}
	renumber := t.Keep(t.need())
	seen := make(map[*catalog.ID]bool) // of lists that files may share
	once := func(list []catalog.ID) {
		if len(list) > 0 && !seen[&list[0]] {
			seen[&list[0]] = true
			renumber(list)
		}
	}
	for i := range t.leaves {
		once(t.leaves[i].chunks)
		for _, n := range t.leaves[i].nodes {
			once(n.table)
			once(n.chunks)
		}
	}
	once(t.list)
	once(t.table)
}
