package checkpoint

import (
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/cut"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// readFiles packs the files that base does not have as they are.
func (b *builder) readFiles(l *pipeline) error {
	if err := b.readStreams(l); err != nil {
		return err
	}
	todo := b.toRead()
	defer b.walk.writeAhead(todo)()
	for _, i := range todo {
		if err := b.walk.fail(b.walk.nodes[i].Path, b.readFile(l, i)); err != nil {
			return err
		}
		b.meter.add(Progress{Files: 1})
	}
	return nil
}

// toRead returns the files that are to be read. The others get the chunks that
// they have in base.
func (b *builder) toRead() (list []int) {
	var old []node // of base, from the one on that comes next
	if b.base.tree != nil {
		old = b.base.tree.nodes
	}
	for i := range b.walk.nodes {
		n := &b.walk.nodes[i]
		if !n.Mode.IsRegular() || b.walk.seen[i].made {
			continue
		}
		for len(old) > 0 && format.ComparePaths(old[0].Path, n.Path) < 0 {
			old = old[1:]
		}
		if len(old) == 0 || !b.walk.unchanged(n, &old[0]) {
			list = append(list, i)
			continue
		}
		n.chunks, n.table = old[0].chunks, old[0].table
		// What was promised of a file says nothing of its times: those with which it
		// was read are the ones to rely on, should nothing be promised any more.
		n.ChangeTime, n.Inode = old[0].ChangeTime, old[0].Inode
		b.meter.add(Progress{Files: 1, Bytes: n.Size})
	}
	return list
}

// writeAhead tells the system of the files that readFile will protect.
func (w *scan) writeAhead(todo []int) (stop func()) {
	dir, ok := w.fsys.(interface{ writeAhead([]string) (stop func()) })
	if !ok {
		return func() {}
	}
	var names []string
	for _, i := range todo {
		if n := &w.nodes[i]; !n.ChangeTime.IsZero() {
			names = append(names, n.Path)
		}
	}
	return dir.writeAhead(names)
}

// unchanged reports whether a file is known to be what it was, unopened.
func (w *scan) unchanged(n, old *node) bool {
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
//
// Its times are recorded, for the next save to rely on, only if every change from
// now on will move them. So the file is protected from unseen writes before it is
// read: what was written before is read, and what is written later moves the times.
func (b *builder) readFile(l *pipeline, i int) error {
	n := &b.walk.nodes[i]
	f, before, err := openRegular(b.walk.fsys, n.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	known := !n.ChangeTime.IsZero()
	if known {
		if known, err = catchMappedWrites(f); err != nil {
			return err
		}
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
	b.walk.describe(i, after)
	b.walk.seen[i].read = true
	if !known {
		n.ChangeTime, n.Inode = time.Time{}, 0
	}
	was, _ := identity(before)
	if was != b.walk.seen[i].changed {
		return b.readAgain(l, n)
	}
	return nil
}

// What became of a file, or of its name, while a state was saved.
var (
	errWritten  = changed("it was written to")
	errRemoved  = changed("it was removed")
	errAdded    = changed("it was added")
	errReplaced = changed("it was replaced")
)

func changed(how string) error {
	return fmt.Errorf("%w: %s; save from a copy or a snapshot that nobody writes to", ErrChanged, how)
}

// compare compares a file's description before it was read to that after.
func compare(before, after fs.FileInfo, read int64) error {
	switch {
	case before.Size() != after.Size() || read != after.Size():
		return changed(fmt.Sprintf("%d bytes before, %d read, %d after", before.Size(), read, after.Size()))
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
	f, _, err := openRegular(b.walk.fsys, n.Path)
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
