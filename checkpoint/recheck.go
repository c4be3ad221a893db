package checkpoint

import (
	"context"
	"io/fs"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// compareAll makes sure, after the last file was read, that every file is what it
// was when it was read or, if it was not, when it was listed; and that no name has
// come or gone. Then the checkpoint is the state of one moment: that in which the
// last file had been read, and the first was not looked at again.
//
// What leaves no trace is not seen: writes through a memory map to pages that were
// dirty before, in files of which no one will rely on the times.
func (b *builder) compareAll(ctx context.Context, l *pipeline) error {
	w := b.walk
	if w.open == nil {
		return nil // a stream
	}
	next := 0 // of the nodes, which come in the same order
	err := fs.WalkDir(w.fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return w.fail(path, err)
		}
		for next < len(w.nodes) && w.seen[next].made {
			next++
		}
		if next == len(w.nodes) || format.ComparePaths(path, w.nodes[next].Path) < 0 {
			return w.fail(path, errAdded)
		}
		if path != w.nodes[next].Path {
			return fs.SkipAll // the node is gone
		}
		next++
		return w.fail(path, b.compareNode(l, next-1, d))
	})
	for next < len(w.nodes) && w.seen[next].made {
		next++
	}
	if err == nil && next < len(w.nodes) {
		err = w.fail(w.nodes[next].Path, errRemoved)
	}
	return err
}

// compareNode compares a node to what is there now.
func (b *builder) compareNode(l *pipeline, i int, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	w, n := b.walk, &b.walk.nodes[i]
	err = w.differs(i, info)
	if err != nil && n.Mode.IsRegular() {
		// A list may be older than the files in it: on Windows, that of a file with
		// several links is.
		if info, err = fs.Lstat(w.fsys, n.Path); err == nil {
			err = w.differs(i, info)
		}
	}
	if err != nil {
		return err
	}
	n.Mode, n.Owner = info.Mode(), w.ownerOf(info)
	switch {
	case n.Mode.IsDir():
		n.ModTime = info.ModTime() // a file has come and gone
	case n.Mode.Type() == fs.ModeSymlink:
		return w.compareLink(n)
	case w.isImmutable(n.Path), w.isWriteOnce(n.Path) && !w.seen[i].read:
	default:
		now, _ := identity(info)
		if now != w.seen[i].changed || w.seen[i].read && w.unsettled(now) {
			return b.readAgain(l, n)
		}
	}
	return nil
}

// unsettled reports whether a file that changed at a time may have been written to
// again without moving it: in the same tick of the clock.
func (w *scan) unsettled(changed time.Time) bool {
	return !changed.IsZero() && !changed.Before(w.began.Add(-tick(changed)))
}

// differs says how a node differs from what info says of it.
func (w *scan) differs(i int, info fs.FileInfo) error {
	n := &w.nodes[i]
	_, inode := identity(info)
	link := n.Mode.Type() == fs.ModeSymlink // which is never written to
	switch {
	case info.Mode().Type() != n.Mode.Type():
		return errReplaced
	case n.Mode.IsDir():
		return nil
	case inode != w.seen[i].inode, link && !info.ModTime().Equal(n.ModTime):
		return errReplaced
	case !link && (info.Size() != n.Size || !info.ModTime().Equal(n.ModTime)):
		return errWritten
	}
	return nil
}

func (w *scan) compareLink(n *node) error {
	target, err := readLink(w.fsys, n.Path)
	if err == nil && target != n.Target {
		err = errReplaced
	}
	return err
}
