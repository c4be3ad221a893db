// Package atomicdir builds a directory aside and puts it in place in one step:
// whoever looks, and whenever the process is killed, the target is either as
// it was or wholly new.
//
// On Linux and macOS an existing directory is exchanged for the new one by one
// system call. Where the system or the file system has no such call, the old
// one is moved aside first: a process killed between the two renames leaves
// no target, and both directories beside it. The next Begin puts the old one
// back.
//
// All that is done outlives a loss of power once Commit has returned. A loss
// before that leaves, like a kill, the old directory or the new one: also on a
// file system that makes names durable in an order of its own, one by one. (Where
// the old one is moved aside, that takes a journal: see package powerloss.)
package atomicdir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/holdfast-io/holdfast/internal/filelock"
)

// ErrNotEmpty means that the target exists, has something in it, and was not
// to be replaced.
var ErrNotEmpty = errors.New("the directory is not empty")

// A Dir is a directory that is being built. It is used by one goroutine at a
// time.
type Dir struct {
	step    stepFunc
	target  string // no link
	replace bool
	aside   string   // beside target; what is built
	parent  *os.Root // of both
	lock    *filelock.Lock
	made    []string // directories above target, which were missing
}

// A stepFunc performs one step that changes what is on disk, or makes it durable:
// op on the file or directory at path. Tests put their own in its place to record
// steps and to fail them. It may be called from several goroutines at once.
type stepFunc func(op, path string, do func() error) error

func perform(_, _ string, do func() error) error { return do() }

// Beside target ".target.holdfast-<random>" is what is built. Whoever builds it
// holds the lock on the file of that name with ".lock", which comes first and
// goes last: what has no living owner can be told. Both have target's parent,
// because only there a directory can be renamed that its owner may not write.
const (
	lockSuffix = ".lock"
	oldSuffix  = ".old" // the old directory, where it could not be exchanged
)

// asideName matches the names of directories that were built, or moved, aside,
// without their prefix.
var asideName = regexp.MustCompile(`^[a-z2-7]{26}(\.old)?$`)

// prefix is what the names of all that is beside target begin with.
func prefix(target string) string { return "." + filepath.Base(target) + ".holdfast-" }

// Begin starts to build what will be the directory target. It makes target's
// parents, and removes what earlier processes left beside target when they
// were killed. If target exists and is not empty, Begin fails with ErrNotEmpty
// unless replace is set.
//
// Commit or Abort must be called.
func Begin(target string, replace bool) (*Dir, error) { return start(target, replace, perform) }

func start(target string, replace bool, step stepFunc) (*Dir, error) {
	target, err := resolve(target)
	if err != nil {
		return nil, err
	}
	d := &Dir{step: step, target: target, replace: replace}
	if err := d.makeParents(filepath.Dir(target)); err != nil {
		return nil, err
	}
	d.parent, err = os.OpenRoot(filepath.Dir(target))
	if err != nil {
		return nil, err
	}
	d.sweep()
	if err = checkTarget(target, replace); err == nil {
		err = d.makeAside()
	}
	if err != nil {
		return nil, errors.Join(err, d.parent.Close())
	}
	return d, nil
}

// makeParents makes the directory at path, with those above it, if it is missing.
func (d *Dir) makeParents(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() || path == filepath.Dir(path) {
		return err
	}
	if err := d.makeParents(filepath.Dir(path)); err != nil {
		return err
	}
	err := d.step("mkdir", path, func() error { return os.Mkdir(path, 0o777) })
	if errors.Is(err, fs.ErrExist) { // another process was faster, unless it is a file
		info, statErr := os.Stat(path)
		if statErr != nil || !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR}
		}
	} else if err != nil {
		return err
	}
	d.made = append(d.made, path)
	return nil
}

// resolve follows the links in target, so that one which names the directory
// goes on to do so.
func resolve(target string) (string, error) {
	abs, err := filepath.Abs(target)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, fs.ErrNotExist) {
		// A directory that another process has made just now is no link.
		if info, err := os.Lstat(abs); err == nil && info.Mode().Type() == fs.ModeSymlink {
			return "", fmt.Errorf("%s: a symbolic link to nothing; remove it, or make the directory that it names", abs)
		}
		return abs, nil
	}
	if err == nil && filepath.Dir(real) == real {
		return "", fmt.Errorf("%s: a root directory can not be replaced", real)
	}
	return real, err
}

func checkTarget(target string, replace bool) error {
	info, err := os.Stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s: not a directory; choose another target", target)
	}
	if err := checkReplaceable(target, info); err != nil {
		return err
	}
	entries, err := os.ReadDir(target)
	if err == nil && len(entries) > 0 && !replace {
		err = fmt.Errorf("%s: %w", target, ErrNotEmpty)
	}
	return err
}

// checkReplaceable refuses directories that another one can not take the place
// of: a mount point, by the system; and this process's own, which would stand
// in a directory that is no more.
func checkReplaceable(target string, info fs.FileInfo) error {
	parent, err := os.Stat(filepath.Dir(target))
	if err != nil {
		return err
	}
	if !sameDevice(info, parent) {
		return fmt.Errorf("%s is a mount point, which can not be replaced; choose a directory below it", target)
	}
	if err := checkMounts(target); err != nil {
		return err
	}
	if here, err := os.Stat("."); err == nil && os.SameFile(here, info) {
		return fmt.Errorf("%s is the working directory, which can not be replaced; go elsewhere first", target)
	}
	return nil
}

// checkMounts refuses a directory in which something is mounted: it would be
// deleted with the old directory.
func checkMounts(target string) error {
	point, err := mountBelow(target)
	if err == nil && point != "" {
		err = fmt.Errorf("%s is a mount point in the directory that is to be replaced, and what it holds would be lost; "+
			"unmount it, or choose another directory", point)
	}
	return err
}

func (d *Dir) makeAside() (err error) {
	for range 10 {
		name := prefix(d.target) + strings.ToLower(rand.Text())
		d.lock, err = d.tryLock(name)
		if errors.Is(err, filelock.ErrHeld) {
			continue // another process swept it before it was locked
		}
		if err != nil {
			return err
		}
		d.aside = filepath.Join(filepath.Dir(d.target), name)
		err := d.step("mkdir", d.aside, func() error { return os.Mkdir(d.aside, 0o777) })
		if err != nil {
			return errors.Join(err, d.release(d.lock, d.aside))
		}
		return nil
	}
	return err
}

func (d *Dir) tryLock(name string) (lock *filelock.Lock, err error) {
	name += lockSuffix
	err = d.step("lock", filepath.Join(filepath.Dir(d.target), name), func() error {
		lock, err = filelock.TryLock(d.parent, name)
		return err
	})
	return lock, err
}

// sweep removes what dead processes left beside the target, or puts it back. It
// is best effort.
func (d *Dir) sweep() {
	for name := range d.leftovers() {
		lock, err := d.tryLock(name)
		if err != nil {
			continue // its owner lives
		}
		// What is removed may be the old directory. That the new one has its
		// place is made durable first.
		if err := d.syncFile(filepath.Dir(d.target)); err != nil {
			_ = lock.Unlock()
			return
		}
		_ = d.release(lock, filepath.Join(filepath.Dir(d.target), name))
	}
}

// leftovers returns what was built aside, by whoever. After a loss of power it
// may have no lock; a living owner's has one.
func (d *Dir) leftovers() map[string]bool {
	entries, _ := os.ReadDir(d.parent.Name())
	found := make(map[string]bool)
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), prefix(d.target))
		name, isLock := strings.CutSuffix(e.Name(), lockSuffix)
		if ours && (isLock || e.IsDir() && asideName.MatchString(rest)) {
			found[strings.TrimSuffix(name, oldSuffix)] = true
		}
	}
	return found
}

// release removes what is beside a target, and then the lock on it: this order
// leaves nothing that could not be swept. An old directory that nothing has taken
// the place of is put back.
func (d *Dir) release(lock *filelock.Lock, aside string) error {
	if !exists(d.target) && exists(aside+oldSuffix) {
		if err := d.rename(aside+oldSuffix, d.target); err != nil {
			return errors.Join(err, lock.Unlock())
		}
	}
	if err := errors.Join(d.removeAll(aside), d.removeAll(aside+oldSuffix)); err != nil {
		return errors.Join(err, lock.Unlock())
	}
	return d.step("unlock", aside+lockSuffix, lock.Remove)
}

// Path returns the directory to put things into.
func (d *Dir) Path() string { return d.aside }

// Commit makes what was built durable and then the target's content. When it
// fails, the target is as it was, unless the error is that of making the last
// step durable. What can not be removed of an old directory is left to the
// next Begin.
func (d *Dir) Commit() error {
	err := d.syncTree()
	if err == nil {
		err = d.publish()
	}
	if err != nil {
		return errors.Join(err, d.Abort())
	}
	if err := d.settle(); err != nil {
		return errors.Join(err, d.leave())
	}
	_ = d.Abort() // what was built is no longer aside; the old directory may be
	return nil
}

// settle makes the names on the way to the target durable.
func (d *Dir) settle() error {
	if err := d.syncFile(filepath.Dir(d.target)); err != nil {
		return err
	}
	for _, dir := range d.made {
		if err := d.syncFile(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// leave leaves what is aside to the next Begin. It may be the old directory, and
// a loss of power may yet put that back.
func (d *Dir) leave() error {
	err := errors.Join(d.lock.Unlock(), d.parent.Close())
	d.parent = nil
	return err
}

func (d *Dir) publish() error {
	err := d.step("rename", d.target, func() error { return rename(d.aside, d.target) })
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if !d.replace { // it was empty when it was looked at
		return fmt.Errorf("%s: %w", d.target, ErrNotEmpty)
	}
	if err := checkMounts(d.target); err != nil { // it may have come since
		return err
	}
	err = d.step("exchange", d.target, func() error { return exchange(d.aside, d.target) })
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return d.moveAndRename()
}

// moveAndRename does in two steps what exchange would do in one.
func (d *Dir) moveAndRename() error {
	if err := d.rename(d.target, d.aside+oldSuffix); err != nil {
		return err
	}
	return d.rename(d.aside, d.target) // if it fails, release puts the old one back
}

func (d *Dir) rename(from, to string) error {
	return d.step("rename", to, func() error { return os.Rename(from, to) })
}

// Abort removes what was built. After Commit it does nothing.
func (d *Dir) Abort() error {
	if d.parent == nil {
		return nil
	}
	err := errors.Join(d.release(d.lock, d.aside), d.parent.Close())
	d.parent = nil
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func (d *Dir) removeAll(path string) error {
	if !exists(path) {
		return nil
	}
	return d.step("remove", path, func() error { return removeAll(path) })
}

// removeAll is os.RemoveAll for trees whose directories may be read-only.
func removeAll(path string) error {
	if os.RemoveAll(path) == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}
