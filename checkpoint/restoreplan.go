package checkpoint

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"iter"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A restorePlan says what a restore will do. A large state is restored in parts, each some
// leaves, so that the memory for what is known of its files and chunks is bounded.
type restorePlan struct {
	c       *Checkpoint
	sub     string
	parts   [][]format.Leaf
	only    *tree              // the tree, if there is one part
	decoder format.TreeDecoder // of one part after the other
	total   Progress
	owners  map[format.Owner]bool // of all files, if they are restored
}

// plan makes sure that the checkpoint has what the options ask for. It reads the list of
// leaves; of a small state everything but the data; of a large one the list of files if that
// is needed to know.
func (c *Checkpoint) plan(ctx context.Context, opts *RestoreOptions) (*restorePlan, error) {
	p := &restorePlan{c: c, sub: cmp.Or(opts.Sub, "."), total: Progress{AllFiles: c.Files, AllBytes: c.Bytes}}
	l, err := c.newLoader()
	if err != nil {
		return nil, err
	}
	leaves, err := l.leaves(ctx)
	if err != nil {
		return nil, err
	}
	p.parts = c.divide(leaves)
	asked := opts.FileOwners
	opts.FileOwners = opts.FileOwners || opts.ownersIfSaved
	if p.isWhole() {
		err = p.readTree(ctx, opts.FileOwners)
	} else if p.sub != "." || opts.FileOwners {
		err = p.readEntries(ctx, opts.FileOwners)
	}
	if err != nil {
		return nil, err
	}
	if opts.FileOwners && len(p.owners) == 0 {
		if asked && c.Files+len(leaves) > 0 {
			return nil, fmt.Errorf("%w: checkpoint %d was saved without them", ErrFileOwners, c.Seq)
		}
		opts.FileOwners = false
	}
	return p, nil
}

// partShare decides how large a part is: what is known of it takes this fraction,
// 1/partShare, of the memory for lists, or it is one leaf.
const partShare = 2

// divide divides leaves into parts.
func (c *Checkpoint) divide(leaves []format.Leaf) (parts [][]format.Leaf) {
	most := c.task.job.data.lists / partShare
	size, from := int64(0), 0
	for i := range leaves {
		own := nodeMemory*int64(leaves[i].Files) + chunkMemory*(leaves[i].Bytes/chunkSize)
		if size += own; size > most && i > from {
			parts, from, size = append(parts, leaves[from:i]), i, own
		}
	}
	return append(parts, leaves[from:])
}

func (p *restorePlan) isWhole() bool { return len(p.parts) == 1 }

// readTree reads the only part.
func (p *restorePlan) readTree(ctx context.Context, owners bool) (err error) {
	if p.only, err = p.tree(ctx, p.parts[0]); err != nil {
		return err
	}
	if p.sub != "." {
		if p.only = p.only.below(p.sub); len(p.only.nodes) == 0 {
			return p.noDirectory()
		}
		p.total = total(p.only.nodes)
	}
	for _, n := range p.only.nodes {
		if owners && n.Owner != nil {
			p.note(n.Owner)
		}
	}
	return nil
}

// readEntries reads the list of files.
func (p *restorePlan) readEntries(ctx context.Context, owners bool) error {
	l, err := p.c.newLoader()
	if err != nil {
		return err
	}
	found := false
	var all Progress
	err = l.entries(ctx, func(_ *leaf, e *format.Entry) error {
		if _, below := pathBelow(p.sub, e); !below {
			return nil
		}
		found = true
		all.count(e)
		if owners && e.Owner != nil {
			p.note(e.Owner)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case !found:
		return p.noDirectory()
	}
	p.total = all
	return nil
}

func (p *restorePlan) note(o *format.Owner) {
	if p.owners == nil {
		p.owners = make(map[format.Owner]bool)
	}
	p.owners[*o] = true
}

func (p *restorePlan) noDirectory() error {
	return p.c.damaged(fmt.Errorf("there is no directory %q in the state; 'holdfast show' lists what there is: %w", p.sub, fs.ErrNotExist))
}

// trees yields the tree of each part, with all tables.
func (p *restorePlan) trees(ctx context.Context) iter.Seq2[*tree, error] {
	return func(yield func(*tree, error) bool) {
		if p.only != nil {
			yield(p.only, nil)
			return
		}
		for i := range p.parts {
			t, err := p.tree(ctx, p.parts[i])
			if err == nil && p.sub != "." {
				t = t.below(p.sub)
			}
			if !yield(t, err) || err != nil {
				return
			}
		}
	}
}

// tree reads the part that comes next, and the tables of its files.
func (p *restorePlan) tree(ctx context.Context, part []format.Leaf) (*tree, error) {
	l, err := p.c.newLoader()
	if err != nil {
		return nil, err
	}
	t := &tree{Catalog: l.catalog}
	leaves := make([]*leaf, len(part))
	for i := range part {
		leaves[i] = &leaf{Leaf: part[i]}
		if leaves[i].chunks, err = l.addAll(part[i].Chunks); err != nil {
			return nil, p.c.damaged(err)
		}
	}
	err = l.eachLeaf(ctx, leaves, &p.decoder, func(_ *leaf, e *format.Entry) error {
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
