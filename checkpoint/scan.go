package checkpoint

import (
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/cut"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/filetimes"
)

// readFiles packs the files that are new, or may have changed since base.
func (b *builder) readFiles(l *pipeline) error {
	if err := b.readStreams(l); err != nil {
		return err
	}
	defer b.scan.writeAhead(b.todo)()
	for _, f := range b.todo {
		if err := b.scan.fail(f.Path, b.readFile(l, f)); err != nil {
			return err
		}
		b.meter.add(Progress{Files: 1})
	}
	return nil
}

// match finds out which files are to be read. The others get the chunks that they have in
// base. It returns the files of base whose chunks may be found again in what is read: those
// that have changed, or are no longer there.
func (b *builder) match() (old []*node) {
	rest := b.oldNodes()
	for _, f := range b.scan.found {
		if f.seen.made || !f.Mode.IsRegular() && !f.Mode.IsDir() {
			continue
		}
		for len(rest) > 0 && format.ComparePaths(rest[0].Path, f.Path) < 0 {
			old, rest = append(old, rest[0]), rest[1:]
		}
		isOld := len(rest) > 0 && rest[0].Path == f.Path
		switch {
		case f.Mode.IsDir():
			if !isOld {
				b.scan.noteUnkeptOf(f.Path)
			}
		case !isOld || !b.scan.unchanged(&f.node, rest[0]):
			b.todo = append(b.todo, f)
		default:
			f.keep(rest[0])
			b.unread.AllFiles++
			b.unread.AllBytes += f.Size
			rest = rest[1:]
		}
	}
	return append(old, rest...)
}

// keep makes f what it was in base.
func (f *found) keep(old *node) {
	f.chunks, f.table, f.Uses = old.chunks, old.table, old.Uses
	// If the file was not read because of a promise (Immutable, WriteOnce), its
	// present times prove nothing. Should a later save come without the promise, it
	// must compare with the times that the file had when it was read.
	f.ChangeTime, f.Inode = old.ChangeTime, old.Inode
}

// oldNodes returns what base has in the leaves that the scan did not find unchanged.
func (b *builder) oldNodes() (nodes []*node) {
	for i, l := range b.leaves() {
		if !b.scan.keeps(i) {
			nodes = append(nodes, l.nodes...)
		}
	}
	return nodes
}

// writeAhead starts to write the dirty pages of the files that readFile will protect.
func (w *scan) writeAhead(todo []*found) (stop func()) {
	dir, ok := w.fsys.(interface{ writeAhead([]string) (stop func()) })
	if !ok {
		return func() {}
	}
	var names []string
	for _, f := range todo {
		if !f.ChangeTime.IsZero() {
			names = append(names, f.Path)
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
func (b *builder) readFile(l *pipeline, f *found) error {
	file, before, err := openRegular(b.scan.fsys, f.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	if before.Size() > format.MaxFile {
		return fmt.Errorf("it has %d bytes; at most %d can be stored", before.Size(), format.MaxFile)
	}
	b.scan.noteUnkept(f.Path, hasUnkept(file))
	known := !f.ChangeTime.IsZero()
	if known {
		if known, err = filetimes.Catch(file); err != nil {
			return err
		}
	}
	f.chunks = make([]catalog.ID, 0, max(before.Size(), 0)/int64(cut.Data.Max())+1) // it has so many at least
	read, err := l.add(withoutHoles(file, before), cut.Data, &f.chunks)
	if err != nil {
		return err
	}
	after, err := file.Stat()
	if err != nil {
		return err
	}
	if err := compare(before, after, read); err != nil {
		return err
	}
	b.scan.describe(f, after)
	f.seen.read = true
	if !known {
		f.ChangeTime, f.Inode = time.Time{}, 0
	}
	was, _ := filetimes.Identity(before)
	if was != f.seen.changed {
		return b.readAgain(l, &f.node)
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
	if n.isUnread() {
		if err := b.readTables(l.ctx, []*node{n}); err != nil {
			return ofBase(err)
		}
	}
	f, info, err := openRegular(b.scan.fsys, n.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	from := withoutHoles(f, info)
	sparse, _ := from.(*sparseReader)
	buf := make([]byte, cut.Data.Max())
	left := n.Size
	for _, id := range n.chunks {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		c := b.catalog.Chunk(id)
		left -= c.Size
		if isZeroChunk(b.catalog, id) && sparse.skipChunk() {
			continue
		}
		if _, err := io.ReadFull(from, buf[:c.Size]); err != nil {
			return fmt.Errorf("%w: it ends earlier than before", ErrChanged)
		}
		if format.Sum(buf[:c.Size]) != c.Hash {
			return errWritten
		}
	}
	if left != 0 {
		return fmt.Errorf("%d of %d bytes were not compared", left, n.Size)
	}
	return nil
}
