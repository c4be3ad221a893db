package checkpoint

import (
	"context"
	"iter"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file finds out what has changed since the checkpoint before, and reads what of that has to
// be compared.

// list lists the state. It leaves out the leaves of base in which nothing has changed.
func (b *builder) list(ctx context.Context) error {
	if !b.scan.empty() {
		if err := b.base.load(ctx); err != nil {
			return err
		}
	}
	m := &matcher{leaves: b.leaves(), want: func(int) bool { return true }}
	if b.scan.reread || len(b.scan.streams) > 0 {
		m.leaves = nil
	}
	if err := b.scan.list(ctx, m); err != nil {
		return err
	}
	if err := b.scan.checkOwners(); err != nil {
		return err
	}
	b.meter.add(b.scan.total())
	b.same = len(m.leaves) > 0 && !slices.ContainsFunc(b.scan.spans, func(s span) bool { return !s.kept })
	return nil
}

// filesMemory returns about how many bytes of memory the files take that were found, and those of base
// that were read before any data was packed.
func (b *builder) filesMemory() int64 {
	size := nodeMemory * int64(len(b.scan.found))
	if b.base.tree != nil {
		size += b.base.tree.nodesSize()
	}
	return size
}

// leaves returns those of base.
func (b *builder) leaves() []leaf {
	if b.base.tree == nil {
		return nil
	}
	return b.base.tree.leaves
}

// readBase reads what the state is to be compared with, and finds out which files are to be
// read. If that is damaged, the baseline becomes the zero one: the new checkpoint then stores
// everything itself.
func (b *builder) readBase(ctx context.Context) error {
	err := b.compare(ctx)
	if err != nil && damaged(err) {
		b.task.saveAnew(ctx, b.base.Seq, err)
		*b.base = baseline{}
		err = b.listAnew(ctx)
	}
	if err == nil {
		b.meter.add(Progress{Files: b.scan.kept.AllFiles + b.unread.AllFiles, Bytes: b.scan.kept.AllBytes + b.unread.AllBytes})
	}
	return err
}

// readAllShare decides how much of base is read: everything if it takes less than this
// fraction, 1/readAllShare, of the memory for lists. Then a file that was copied or renamed is
// found again.
const readAllShare = 4

// compare reads those leaves of base in which something has changed, and the tables of files
// that have changed.
func (b *builder) compare(ctx context.Context) error {
	t, c := b.base.tree, b.base.Checkpoint
	if t == nil {
		b.match()
		return nil
	}
	var changed, joined []int
	for i, s := range b.scan.spans {
		if !s.kept && s.leaf >= 0 {
			changed = append(changed, s.leaf)
		}
		if before, ok := b.joins(i); ok {
			joined = append(joined, before)
		}
	}
	if b.scan.spans[0].leaf < 0 || c.listMemory() < b.task.job.data.lists/readAllShare {
		if err := t.readAll(ctx, c); err != nil {
			return err
		}
	}
	if err := t.read(ctx, c, append(changed, joined...)); err != nil {
		return err
	}
	for _, i := range joined {
		b.opened[i] = asFound(t.leaves[i].nodes)
	}
	return t.readTables(ctx, c, b.match())
}

// joins reports whether what is in span i is to be stored together with a leaf before it: that
// one has room, nothing is left in between, and nothing begins a leaf here any more.
func (b *builder) joins(i int) (leaf int, ok bool) {
	s := b.scan.spans[i]
	if s.kept || s.from == s.to || format.StartsLeaf(b.scan.found[s.from].Path) {
		return 0, false
	}
	before := i - 1
	for before >= 0 && !b.scan.spans[before].kept && b.scan.spans[before].from == b.scan.spans[before].to {
		before--
	}
	if before < 0 || !b.scan.spans[before].kept {
		return 0, false
	}
	size := int64(0)
	for _, id := range b.leaves()[before].chunks {
		size += b.base.tree.Size(id)
	}
	return before, size < format.LeafSize
}

// listAnew lists the state once more, without leaving anything out.
func (b *builder) listAnew(ctx context.Context) error {
	w, before := b.scan, b.scan.total()
	w.found, w.spans, w.kept = nil, nil, Progress{}
	b.todo, b.unread = nil, Progress{}
	clear(b.opened)
	if err := w.list(ctx, new(matcher)); err != nil {
		return err
	}
	now := w.total()
	b.meter.add(Progress{AllFiles: now.AllFiles - before.AllFiles, AllBytes: now.AllBytes - before.AllBytes})
	b.match()
	return nil
}

// open makes what is in leaves of base a part of what is stored again.
func (b *builder) open(ctx context.Context, leaves []int) error {
	t, before := b.base.tree, len(b.late)
	for _, i := range leaves {
		if t.leaves[i].nodes == nil {
			b.late = append(b.late, i)
		}
	}
	if len(b.late) > before {
		if err := b.packer.yield(); err != nil {
			return err
		}
	}
	if err := t.read(ctx, b.base.Checkpoint, leaves); err != nil {
		return err
	}
	for _, i := range leaves {
		b.opened[i] = asFound(t.leaves[i].nodes)
	}
	return nil
}

// readTables reads tables of base while data is packed.
func (b *builder) readTables(ctx context.Context, nodes []*node) error {
	if len(nodes) > 0 {
		if err := b.packer.yield(); err != nil {
			return err
		}
	}
	return b.base.tree.readTables(ctx, b.base.Checkpoint, nodes)
}

// asFound returns nodes of base as what a scan would find if nothing changed.
func asFound(nodes []*node) []*found {
	list := make([]*found, len(nodes))
	for i, n := range nodes {
		list[i] = &found{*n, fileStamp{changed: n.ChangeTime, inode: n.Inode}}
	}
	return list
}

// all yields all that is to be stored, but for what stays in leaves as they are.
func (b *builder) all() iter.Seq[*found] {
	return func(yield func(*found) bool) {
		for _, s := range b.scan.spans {
			for _, f := range b.in(s) {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// in returns what is in a span, or nothing if that stays in its leaf as it is.
func (b *builder) in(s span) []*found {
	if s.kept {
		return b.opened[s.leaf]
	}
	return b.scan.found[s.from:s.to]
}

func (b *builder) undo() {
	b.catalog.Reset(b.mark)
	t := b.base.tree
	if t == nil {
		return
	}
	for _, i := range b.late {
		t.leaves[i].nodes = nil
	}
}
