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

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/internal/filelock"
)

// asideName matches the names, without their prefix, of new directories and of old
// ones that were renamed.
var asideName = regexp.MustCompile(`^[a-z2-7]{26}(\.old)?$`)

// sweep removes what dead processes left beside the target, or puts an old directory
// back. It is best effort.
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

// sweepOne removes what belongs to the lock of a dead process. An error means that
// nothing can be removed at present.
func (d *Dir) sweepOne(name string, lock *filelock.Lock) error {
	known, err := d.noted(lock)
	if err != nil {
		_ = lock.Unlock()
		return nil
	}
	// The directory to remove may be the old one. First make it durable that the new
	// one has taken its place.
	if err := d.syncFolder(d.parent); err != nil {
		_ = lock.Unlock()
		return err
	}
	_ = d.release(lock, name, known)
	return nil
}

// leftovers returns the names of all directories and locks of other processes beside
// the target. After a loss of power the lock file of a directory may be missing;
// while its process lives, it exists.
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

// Where other users may change names, a name alone does not prove what a directory
// is. So the process that builds a directory writes a note into its lock file, which
// nobody else may write: the device and inode of the new directory, and of the one
// that it will replace. Only these are removed with the lock. If a loss of power
// destroys the note, the directories are kept.
const noteLine = "directory %d %d\n" // device and inode

// maxNote is the largest size of a note, in bytes.
const maxNote = 1 << 10

// note writes a note of the given directories into this process's lock file.
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

// errNotOurs means that a lock file belongs to another user.
var errNotOurs = errors.New("another user's")

// noted returns the directories that may be removed with a dead process's lock.
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

// release removes the directories that belong to a lock, and then the lock file: in
// this order, whatever is left can still be swept. If the target is missing, release
// puts the old directory back.
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

// mayRemove reports whether name is that of a directory that may be removed.
func (d *Dir) mayRemove(name string, known []identity) bool {
	info, err := d.parent.Lstat(name)
	return err == nil && d.isKnown(info, known)
}

func (d *Dir) isKnown(info fs.FileInfo, known []identity) bool {
	return info.IsDir() && (!d.shared || slices.Contains(known, identityOf(info)))
}

// remove removes the directory name with all its content, if it is among the known
// ones.
func (d *Dir) remove(name string, known []identity) error {
	if !d.mayRemove(name, known) {
		return nil
	}
	dir, err := d.parent.open(name)
	if errors.Is(err, fs.ErrPermission) && !d.shared {
		_ = giveAccess(d.parent.Root, name)
		dir, err = d.parent.open(name)
	}
	if err != nil {
		return err
	}
	if !d.isKnown(dir.info, known) { // the name stands for another directory now
		return dir.close()
	}
	return d.step("remove", d.parent.path(name), func() error {
		return errors.Join(clearOut(dir.Root), dir.close(), removeEmpty(d.parent, name))
	})
}

// clearOut removes all that is in a directory, also from read-only subdirectories. It
// follows no symbolic link.
func clearOut(dir *os.Root) error {
	if removeEntries(dir) == nil {
		return nil
	}
	makeWritable(dir)
	return removeEntries(dir)
}

// removers is how many entries of a directory are removed at a time. What takes time is the
// file system's part, which does several at once.
const removers = 4

func removeEntries(dir *os.Root) error {
	entries, err := listOf(dir)
	var group errgroup.Group
	group.SetLimit(removers)
	for _, e := range entries {
		group.Go(func() error { return dir.RemoveAll(e.Name()) })
	}
	return errors.Join(group.Wait(), err)
}

// makeWritable gives this user, as far as possible, the right to remove what is in a
// directory and in its subdirectories. It changes modes through descriptors where it
// can, because a name may stand for another file by now.
func makeWritable(dir *os.Root) {
	_ = dir.Chmod(".", 0o700)
	entries, _ := listOf(dir)
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		sub, err := dir.OpenRoot(e.Name() + "/.")
		if errors.Is(err, fs.ErrPermission) { // does not happen to root
			_ = giveAccess(dir, e.Name())
			sub, err = dir.OpenRoot(e.Name() + "/.")
		}
		if err == nil {
			makeWritable(sub)
			_ = sub.Close()
		}
	}
}
