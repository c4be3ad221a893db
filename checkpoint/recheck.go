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
	next := 0 // index of the next node; WalkDir has the same order
	err := fs.WalkDir(w.fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return w.fail(path, err)
		}
		next = w.skipMade(next)
		if next == len(w.nodes) || format.ComparePaths(path, w.nodes[next].Path) < 0 {
			return w.fail(path, errAdded)
		}
		if path != w.nodes[next].Path {
			return fs.SkipAll // the node was removed
		}
		next++
		return w.fail(path, b.compareNode(l, next-1, d))
	})
	next = w.skipMade(next)
	if err == nil && next < len(w.nodes) {
		err = w.fail(w.nodes[next].Path, errRemoved)
	}
	return err
}

// skipMade returns the index of the first node from i on that is in the file system.
func (w *scan) skipMade(i int) int {
	for i < len(w.nodes) && w.seen[i].made {
		i++
	}
	return i
}

// compareNode compares a node to what the file system has now under its name.
func (b *builder) compareNode(l *pipeline, i int, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	w, n := b.scan, &b.scan.nodes[i]
	err = w.differs(i, info)
	if err != nil && n.Mode.IsRegular() {
		// A directory's list may be older than its files: on Windows, it is for a file
		// with several links. So ask for the file itself.
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
		n.ModTime = info.ModTime() // it differs if a file was added and removed again
	case n.Mode.Type() == fs.ModeSymlink:
		return w.compareLink(n)
	case w.isImmutable(n.Path), w.isWriteOnce(n.Path) && !w.seen[i].read:
	default:
		now, _ := filetimes.Identity(info)
		if now != w.seen[i].changed || w.seen[i].read && w.unsettled(now) {
			return b.readAgain(l, n)
		}
	}
	return nil
}

// unsettled reports whether a file with that change time may have been written to again
// without getting another one: in the same tick of the clock.
func (w *scan) unsettled(changed time.Time) bool {
	return !changed.IsZero() && !changed.Before(w.began.Add(-filetimes.Tick(changed)))
}

// differs returns an error if a node was replaced or written to, by what info says of it
// now.
func (w *scan) differs(i int, info fs.FileInfo) error {
	n := &w.nodes[i]
	_, inode := filetimes.Identity(info)
	link := n.Mode.Type() == fs.ModeSymlink // links are replaced, never written to
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
