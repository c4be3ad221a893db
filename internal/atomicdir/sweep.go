package atomicdir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/filelock"
)

// asideName matches the names of directories that were built, or moved, aside,
// without their prefix.
var asideName = regexp.MustCompile(`^[a-z2-7]{26}(\.old)?$`)

// sweep removes what dead processes left beside the target, or puts it back. It
// is best effort.
func (d *Dir) sweep() {
	for name := range d.leftovers() {
		lock, err := d.tryLock(name)
		if err != nil {
			continue // its owner lives
		}
		if err := d.sweepOne(name, lock); err != nil {
			return
		}
	}
}

// sweepOne removes what belongs to a lock that a dead process had. It fails if
// nothing can be removed.
func (d *Dir) sweepOne(name string, lock *filelock.Lock) error {
	known, err := d.noted(lock)
	if err != nil {
		_ = lock.Unlock()
		return nil
	}
	// What is removed may be the old directory. That the new one has its place is
	// made durable first.
	if err := d.syncFolder(d.parent); err != nil {
		_ = lock.Unlock()
		return err
	}
	_ = d.release(lock, name, known)
	return nil
}

// leftovers returns what was built aside, by whoever. After a loss of power it
// may have no lock; a living owner's has one.
func (d *Dir) leftovers() map[string]bool {
	entries, _ := d.parent.list()
	found := make(map[string]bool)
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), d.prefix())
		name, isLock := strings.CutSuffix(e.Name(), lockSuffix)
		if ours && (isLock || e.IsDir() && asideName.MatchString(rest)) {
			found[strings.TrimSuffix(name, oldSuffix)] = true
		}
	}
	delete(found, d.aside)
	return found
}

// Where others may change names, whoever builds a directory notes in the file of
// its lock, which nobody else may write, which directories are to be removed with
// it: the one that is built, and the one that it is to replace. There, a name alone
// proves nothing. What a loss of power has taken the note of stays.
const noteLine = "directory %d %d\n" // device and inode

// maxNote bounds a note, in bytes.
const maxNote = 1 << 10

// note notes directories in this process's lock.
func (d *Dir) note(list ...*folder) error {
	if !d.shared {
		return nil
	}
	var text []byte
	for _, f := range list {
		if f != nil {
			id := identityOf(f.info)
			text = fmt.Appendf(text, noteLine, id.dev, id.ino)
		}
	}
	return d.step("note", d.parent.path(d.aside+lockSuffix), func() error {
		_, err := d.lock.File().WriteAt(text, 0)
		return err
	})
}

// errNotOurs means that a lock is another user's.
var errNotOurs = errors.New("another user's")

// noted returns which directories may be removed with a dead process's lock.
func (d *Dir) noted(lock *filelock.Lock) (list []identity, err error) {
	if !d.shared {
		return nil, nil
	}
	info, err := lock.File().Stat()
	if err != nil {
		return nil, err
	}
	mine, err := d.lock.File().Stat()
	if err != nil {
		return nil, err
	}
	if !sameOwner(info, mine) || info.Mode() != mine.Mode() {
		return nil, errNotOurs
	}
	text, err := io.ReadAll(io.NewSectionReader(lock.File(), 0, maxNote))
	for line := range bytes.Lines(text) {
		var id identity
		if _, err := fmt.Sscanf(string(line), noteLine, &id.dev, &id.ino); err == nil {
			list = append(list, id)
		}
	}
	return list, err
}

// release removes what is beside a target, and then the lock on it: this order
// leaves nothing that could not be swept. An old directory that nothing has taken
// the place of is put back.
func (d *Dir) release(lock *filelock.Lock, aside string, known []identity) error {
	old := aside + oldSuffix
	if _, err := d.parent.Lstat(d.target); errors.Is(err, fs.ErrNotExist) && d.mayRemove(old, known) {
		if err := d.rename(old, d.target); err != nil {
			return errors.Join(err, lock.Unlock())
		}
	}
	if err := errors.Join(d.remove(aside, known), d.remove(old, known)); err != nil {
		return errors.Join(err, lock.Unlock())
	}
	return d.step("unlock", d.parent.path(aside+lockSuffix), lock.Remove)
}

// mayRemove reports whether a name stands for a directory that may be removed.
func (d *Dir) mayRemove(name string, known []identity) bool {
	info, err := d.parent.Lstat(name)
	return err == nil && d.isKnown(info, known)
}

func (d *Dir) isKnown(info fs.FileInfo, known []identity) bool {
	return info.IsDir() && (!d.shared || slices.Contains(known, identityOf(info)))
}

// remove removes the directory of a name, with all that is in it, if it is one of
// those that are known.
func (d *Dir) remove(name string, known []identity) error {
	if !d.mayRemove(name, known) {
		return nil
	}
	dir, err := d.parent.open(name)
	if errors.Is(err, fs.ErrPermission) && !d.shared {
		_ = d.parent.Chmod(name, 0o700) // nobody else can have put another file there
		dir, err = d.parent.open(name)
	}
	if err != nil {
		return err
	}
	if !d.isKnown(dir.info, known) { // it has become another one
		return dir.close()
	}
	return d.step("remove", d.parent.path(name), func() error {
		return errors.Join(clearOut(dir.Root), dir.close(), removeEmpty(d.parent, name))
	})
}

// clearOut removes all that is in a directory, from directories too that may not be
// written. It follows no link and leads nowhere else.
func clearOut(dir *os.Root) error {
	if removeEntries(dir) == nil {
		return nil
	}
	makeWritable(dir)
	return removeEntries(dir)
}

func removeEntries(dir *os.Root) error {
	entries, err := listOf(dir)
	for _, e := range entries {
		if err := dir.RemoveAll(e.Name()); err != nil {
			return err
		}
	}
	return err
}

// makeWritable gives this user the right to remove what is in a directory and
// those below it, as far as that can be given. The mode of one that can be opened
// is changed by its descriptor: its name may have come to stand for another file.
func makeWritable(dir *os.Root) {
	_ = dir.Chmod(".", 0o700)
	entries, _ := listOf(dir)
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		sub, err := dir.OpenRoot(e.Name() + "/.")
		if errors.Is(err, fs.ErrPermission) { // which root is never told
			_ = dir.Chmod(e.Name(), 0o700)
			sub, err = dir.OpenRoot(e.Name() + "/.")
		}
		if err == nil {
			makeWritable(sub)
			_ = sub.Close()
		}
	}
}
