package checkpoint

import (
	"context"
	"io/fs"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/filetimes"
)

// compareAll makes sure that the checkpoint is the state of one moment. After the last file
// was read, it lists the directory again, and checks that no file has changed since it was
// read (or, if it was not read, since it was listed), and that no name was added or
// removed. So all files are as they were between the last reading and this listing.
//
// It does not see writes through a memory map to pages that were dirty before, in files
// whose times are not recorded.
func (b *builder) compareAll(ctx context.Context, l *pipeline) error {
	w := b.scan
	if w.open == nil {
		return nil // a stream
	}
	m := &matcher{want: w.keeps}
	if w.spans[0].leaf >= 0 {
		m.leaves = b.leaves()
	}
	now, err := w.listAgain(ctx, m)
	if err != nil {
		return err
	}
	for i, s := range w.spans {
		at := now.spans[i]
		then := w.found[s.from:s.to]
		if s.kept && at.kept {
			continue
		}
		if s.kept {
			if then, err = b.reopen(ctx, s.leaf, now.found[at.from:at.to]); err != nil {
				return err
			}
		}
		if err := b.compareSpan(ctx, l, then, now.found[at.from:at.to]); err != nil {
			return err
		}
	}
	return nil
}

// reopen returns what is in a leaf in which the first listing found nothing changed, and the
// second did, as if the first had found it.
func (b *builder) reopen(ctx context.Context, leaf int, now []*found) ([]*found, error) {
	if b.opened[leaf] == nil {
		if err := b.open(ctx, []int{leaf}); err != nil {
			return nil, ofBase(err)
		}
	}
	then := b.opened[leaf]
	inodes := make(map[string]uint64)
	for _, f := range now {
		inodes[f.Path] = f.seen.inode
	}
	for _, f := range then {
		if !f.Mode.IsRegular() {
			f.seen.inode = inodes[f.Path] // it is not known what it was; a link's time and target tell
		}
	}
	return then, nil
}

// compareSpan compares what was found to what is there now.
func (b *builder) compareSpan(ctx context.Context, l *pipeline, then, now []*found) error {
	w := b.scan
	for _, f := range then {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case f.seen.made:
			continue
		case len(now) == 0 || format.ComparePaths(now[0].Path, f.Path) > 0:
			return w.fail(f.Path, errRemoved)
		case now[0].Path != f.Path:
			return w.fail(now[0].Path, errAdded)
		}
		if err := w.fail(f.Path, b.compareNode(l, f, now[0])); err != nil {
			return err
		}
		now = now[1:]
	}
	if len(now) > 0 {
		return w.fail(now[0].Path, errAdded)
	}
	return nil
}

// compareNode compares a node to what the file system has now under its name.
func (b *builder) compareNode(l *pipeline, f, now *found) error {
	w := b.scan
	err := f.differs(now)
	if err != nil && f.Mode.IsRegular() {
		// A directory's list may be older than its files: on Windows, it is for a file
		// with several links. So ask for the file itself.
		var info fs.FileInfo
		if info, err = fs.Lstat(w.fsys, f.Path); err == nil {
			w.describe(now, info)
			err = f.differs(now)
		}
	}
	if err != nil {
		return err
	}
	f.Mode, f.Owner = now.Mode, now.Owner
	switch {
	case f.Mode.IsDir():
		f.ModTime = now.ModTime // it differs if a file was added and removed again
	case f.Mode.Type() == fs.ModeSymlink:
	case w.isImmutable(f.Path), w.isWriteOnce(f.Path) && !f.seen.read:
	default:
		if !now.seen.changed.Equal(f.seen.changed) || f.seen.read && w.unsettled(now.seen.changed) {
			return b.readAgain(l, &f.node)
		}
	}
	return nil
}

// unsettled reports whether a file with that change time may have been written to again
// without getting another one: in the same tick of the clock.
func (w *scan) unsettled(changed time.Time) bool {
	return !changed.IsZero() && !changed.Before(w.began.Add(-filetimes.Tick(changed)))
}

// differs returns an error if a node was replaced or written to, by what is said of it now.
func (f *found) differs(now *found) error {
	link := f.Mode.Type() == fs.ModeSymlink // links are replaced, never written to
	switch {
	case now.Mode.Type() != f.Mode.Type():
		return errReplaced
	case f.Mode.IsDir():
		return nil
	case now.seen.inode != f.seen.inode, link && (!now.ModTime.Equal(f.ModTime) || now.Target != f.Target):
		return errReplaced
	case !link && (now.Size != f.Size || !now.ModTime.Equal(f.ModTime)):
		return errWritten
	}
	return nil
}
