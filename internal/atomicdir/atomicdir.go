// Package atomicdir builds a directory aside and puts it in place in one step:
// whoever looks, and whenever the process is killed, the target is either as
// it was or wholly new.
//
// On Linux and macOS an existing directory is exchanged for the new one by one
// system call. Where the system or the file system has no such call, the old
// one is moved aside first: a process killed between the two renames leaves
// no target, and both directories beside it. The next Begin puts the old one
// back.
package atomicdir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-io/holdfast/internal/filelock"
)

// ErrNotEmpty means that the target exists, has something in it, and was not
// to be replaced.
var ErrNotEmpty = errors.New("the directory is not empty")

// A Dir is a directory that is being built. It is used by one goroutine at a
// time.
type Dir struct {
	target  string // no link
	replace bool
	aside   string   // beside target; what is built
	parent  *os.Root // of both
	lock    *filelock.Lock
}

// Beside target ".target.holdfast-<random>" is what is built. Whoever builds it
// holds the lock on the file of that name with ".lock", which comes first and
// goes last: what has no living owner can be told. Both have target's parent,
// because only there a directory can be renamed that its owner may not write.
const (
	lockSuffix = ".lock"
	oldSuffix  = ".old" // the old directory, where it could not be exchanged
)

// prefix is what the names of all that is beside target begin with.
func prefix(target string) string { return "." + filepath.Base(target) + ".holdfast-" }

// Begin starts to build what will be the directory target. It makes target's
// parents, and removes what earlier processes left beside target when they
// were killed. If target exists and is not empty, Begin fails with ErrNotEmpty
// unless replace is set.
//
// Commit or Abort must be called.
func Begin(target string, replace bool) (*Dir, error) {
	target, err := resolve(target)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
		return nil, err
	}
	parent, err := os.OpenRoot(filepath.Dir(target))
	if err != nil {
		return nil, err
	}
	sweep(parent, target)
	d := &Dir{target: target, replace: replace, parent: parent}
	if err = checkTarget(target, replace); err == nil {
		err = d.makeAside()
	}
	if err != nil {
		return nil, errors.Join(err, parent.Close())
	}
	return d, nil
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
		if _, err := os.Lstat(abs); err == nil {
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
		d.lock, err = filelock.TryLock(d.parent, name+lockSuffix)
		if errors.Is(err, filelock.ErrHeld) {
			continue // another process swept it before it was locked
		}
		if err != nil {
			return err
		}
		d.aside = filepath.Join(filepath.Dir(d.target), name)
		if err := os.Mkdir(d.aside, 0o777); err != nil {
			return errors.Join(err, d.lock.Remove())
		}
		return nil
	}
	return err
}

// sweep removes what dead processes left beside target, or puts it back. It is
// best effort.
func sweep(parent *os.Root, target string) {
	entries, _ := os.ReadDir(parent.Name())
	for _, e := range entries {
		name, isLock := strings.CutSuffix(e.Name(), lockSuffix)
		if !isLock || !strings.HasPrefix(name, prefix(target)) {
			continue
		}
		lock, err := filelock.TryLock(parent, e.Name())
		if err != nil {
			continue // its owner lives
		}
		aside := filepath.Join(filepath.Dir(target), name)
		if _, err := os.Lstat(target); errors.Is(err, fs.ErrNotExist) {
			_ = os.Rename(aside+oldSuffix, target)
		}
		_ = release(lock, aside)
	}
}

// release removes what is beside a target, and then the lock on it: this order
// leaves nothing that could not be swept.
func release(lock *filelock.Lock, aside string) error {
	if err := errors.Join(removeAll(aside), removeAll(aside+oldSuffix)); err != nil {
		return errors.Join(err, lock.Unlock())
	}
	return lock.Remove()
}

// Path returns the directory to put things into.
func (d *Dir) Path() string { return d.aside }

// Commit makes what was built durable and then the target's content. When it
// fails, the target is as it was, unless the error is that of making the last
// step durable. What can not be removed of an old directory is left to the
// next Begin.
func (d *Dir) Commit() error {
	err := syncTree(d.aside)
	if err == nil {
		err = d.publish()
	}
	if err != nil {
		return errors.Join(err, d.Abort())
	}
	err = syncFile(filepath.Dir(d.target))
	_ = d.Abort() // what was built is no longer aside; the old directory may be
	return err
}

func (d *Dir) publish() error {
	err := rename(d.aside, d.target)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if !d.replace { // it was empty when it was looked at
		return fmt.Errorf("%s: %w", d.target, ErrNotEmpty)
	}
	if err := checkMounts(d.target); err != nil { // it may have come since
		return err
	}
	if err := exchange(d.aside, d.target); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return d.moveAndRename()
}

// moveAndRename does in two steps what exchange would do in one.
func (d *Dir) moveAndRename() error {
	if err := os.Rename(d.target, d.aside+oldSuffix); err != nil {
		return err
	}
	if err := os.Rename(d.aside, d.target); err != nil {
		return errors.Join(err, os.Rename(d.aside+oldSuffix, d.target))
	}
	return nil
}

// Abort removes what was built. After Commit it does nothing.
func (d *Dir) Abort() error {
	if d.parent == nil {
		return nil
	}
	err := errors.Join(release(d.lock, d.aside), d.parent.Close())
	d.parent = nil
	return err
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
