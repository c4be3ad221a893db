package checkpoint

import (
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/cut"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/filetimes"
)

// readFiles packs the files that are new, or may have changed since base.
func (b *builder) readFiles(l *pipeline) error {
	if err := b.readStreams(l); err != nil {
		return err
	}
	todo := b.toRead()
	defer b.scan.writeAhead(todo)()
	for _, i := range todo {
		if err := b.scan.fail(b.scan.nodes[i].Path, b.readFile(l, i)); err != nil {
			return err
		}
		b.meter.add(Progress{Files: 1})
	}
	return nil
}

// toRead returns the indexes of the files that are to be read. The others get the chunks
// that they have in base.
func (b *builder) toRead() (list []int) {
	var old []node // base's nodes that have not been passed yet
	if b.base.tree != nil {
		old = b.base.tree.nodes
	}
	for i := range b.scan.nodes {
		n := &b.scan.nodes[i]
		if b.scan.seen[i].made || !n.Mode.IsRegular() && !n.Mode.IsDir() {
			continue
		}
		for len(old) > 0 && format.ComparePaths(old[0].Path, n.Path) < 0 {
			old = old[1:]
		}
		if n.Mode.IsDir() {
			if len(old) == 0 || old[0].Path != n.Path {
				b.scan.noteUnkeptOf(n.Path)
			}
			continue
		}
		if len(old) == 0 || !b.scan.unchanged(n, &old[0]) {
			list = append(list, i)
			continue
		}
		n.chunks, n.table = old[0].chunks, old[0].table
		// If the file was not read because of a promise (Immutable, WriteOnce), its
		// present times prove nothing. Should a later save come without the promise, it
		// must compare with the times that the file had when it was read.
		n.ChangeTime, n.Inode = old[0].ChangeTime, old[0].Inode
		b.meter.add(Progress{Files: 1, Bytes: n.Size})
	}
	return list
}

// writeAhead starts to write the dirty pages of the files that readFile will protect.
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

// unchanged reports whether a file is known to be unchanged without opening it.
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

// readFile packs a regular file, and makes sure that it did not change while it was read:
// a torn file must not be stored.
//
// The next save relies on the file's times if they are recorded. So they are recorded only
// if every later write will change them. To ensure that for writes through memory maps,
// the file's pages are write-protected before it is read: what was written before is read,
// and what is written later changes the times.
func (b *builder) readFile(l *pipeline, i int) error {
	n := &b.scan.nodes[i]
	f, before, err := openRegular(b.scan.fsys, n.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	b.scan.noteUnkept(n.Path, hasUnkept(f))
	known := !n.ChangeTime.IsZero()
	if known {
		if known, err = filetimes.Catch(f); err != nil {
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
	b.scan.describe(i, after)
	b.scan.seen[i].read = true
	if !known {
		n.ChangeTime, n.Inode = time.Time{}, 0
	}
	was, _ := filetimes.Identity(before)
	if was != b.scan.seen[i].changed {
		return b.readAgain(l, n)
	}
	return nil
}

// What may happen to a file, or to its name, while a state is saved.
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

// readAgain makes sure that a file whose change time moved during the save has the same
// content as when it was read. The change time also moves when a hard link to the file is
// added or removed. That happens to a database's snapshot, which shares files with the
// database.
func (b *builder) readAgain(l *pipeline, n *node) error {
	if err := l.wait(); err != nil {
		return err
	}
	f, _, err := openRegular(b.scan.fsys, n.Path)
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
