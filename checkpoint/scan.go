package checkpoint

import (
	"fmt"
	"io"
	"io/fs"

	"github.com/holdfast-io/holdfast/checkpoint/internal/cut"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// readFiles packs the files that base does not have as they are.
func (b *builder) readFiles(l *pipeline) error {
	if b.walk.stream != nil {
		if b.base.tree != nil {
			b.choose(b.base.tree.need())
		}
		n := &b.walk.nodes[len(b.walk.nodes)-1]
		var err error
		if n.Size, err = l.add(b.walk.stream, cut.Data, &n.chunks); err != nil {
			return fmt.Errorf("stream %q: %w", b.walk.name, err)
		}
		b.meter.add(Progress{Files: 1, AllBytes: n.Size})
		return nil
	}
	var old []node // of base, from the one on that comes next
	if b.base.tree != nil {
		old = b.base.tree.nodes
	}
	for i := range b.walk.nodes {
		n := &b.walk.nodes[i]
		if !n.Mode.IsRegular() {
			continue
		}
		for len(old) > 0 && format.ComparePaths(old[0].Path, n.Path) < 0 {
			old = old[1:]
		}
		if len(old) > 0 && b.walk.unchanged(n, &old[0]) {
			n.chunks, n.table = old[0].chunks, old[0].table
			b.meter.add(Progress{Files: 1, Bytes: n.Size})
			continue
		}
		if err := b.walk.fail(n.Path, b.readFile(l, n)); err != nil {
			return err
		}
		b.meter.add(Progress{Files: 1})
	}
	return nil
}

// unchanged reports whether a file is known to be what it was, unopened.
func (w *walk) unchanged(n, old *node) bool {
	switch {
	case w.reread || n.Path != old.Path || !old.Mode.IsRegular() || n.Size != old.Size:
		return false
	case w.isImmutable(n.Path):
		return true
	case w.isWriteOnce(n.Path):
		return n.ModTime.Equal(old.ModTime)
	case n.ChangeTime.IsZero():
		return false
	}
	return n.ChangeTime.Equal(old.ChangeTime) && n.ModTime.Equal(old.ModTime) && n.Inode == old.Inode
}

// readFile packs a regular file, and makes sure that it stayed the same all
// the while: a torn file must not be stored.
func (b *builder) readFile(l *pipeline, n *node) error {
	f, err := b.walk.fsys.Open(n.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return err
	}
	if !before.Mode().IsRegular() {
		return fmt.Errorf("%w: it is no longer a regular file", ErrChanged)
	}
	read, err := l.add(f, cut.Data, &n.chunks)
	if err != nil {
		return err
	}
	after, err := f.Stat()
	if err != nil {
		return err
	}
	if err := compare(before, after, read); err != nil {
		return err
	}
	b.walk.describe(n, after)
	was, _ := identity(before)
	if is, _ := identity(after); was != is {
		return b.readAgain(l, n)
	}
	return nil
}

// errWritten says that a file was written to while it was read.
var errWritten = fmt.Errorf("%w: it was written to; save from a copy or a snapshot that nobody writes to", ErrChanged)

// compare compares a file's description before it was read to that after.
func compare(before, after fs.FileInfo, read int64) error {
	switch {
	case before.Size() != after.Size() || read != after.Size():
		return fmt.Errorf("%w: %d bytes before, %d read, %d after; save from a copy or a snapshot that nobody writes to",
			ErrChanged, before.Size(), read, after.Size())
	case !before.ModTime().Equal(after.ModTime()):
		return errWritten
	}
	return nil
}

// readAgain reads a file whose change time moved while it was read, and makes
// sure that it has the same content. The time also moves when a hard link to
// the file comes or goes, as happens to a database's snapshot that shares files
// with the database.
func (b *builder) readAgain(l *pipeline, n *node) error {
	if err := l.wait(); err != nil {
		return err
	}
	f, err := b.walk.fsys.Open(n.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, cut.Data.Max())
	for _, id := range n.chunks {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		c := b.catalog.Chunk(id)
		if _, err := io.ReadFull(f, buf[:c.Size]); err != nil {
			return fmt.Errorf("%w: it ends earlier than before", ErrChanged)
		}
		if format.Sum(buf[:c.Size]) != c.Hash {
			return errWritten
		}
	}
	return nil
}
