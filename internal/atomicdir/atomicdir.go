// Package atomicdir builds a directory aside and puts it in place in one step:
// whoever looks, and whenever the process is killed, the target is either as
// it was or wholly new.
//
// On Linux and macOS an existing directory is exchanged for the new one by one
// system call. Where the system or the file system has no such call, the old
// one is moved aside first: a process killed between the two renames leaves
// no target, and both directories beside it.
package atomicdir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/holdfast-io/holdfast/internal/filelock"
)

// ErrNotEmpty means that the target exists, has something in it, and was not
// to be replaced.
var ErrNotEmpty = errors.New("the directory is not empty")

// A Dir is a directory that is being built. It is used by one goroutine at a
// time.
type Dir struct {
	target string // no link
	aside  string // beside target; holds the lock, and the new directory
	lock   *filelock.Lock
	root   *os.Root // aside
}

// Begin starts to build what will be the directory target. If that exists and
// is not empty, Begin fails with ErrNotEmpty unless replace is set. It also
// removes what earlier processes left beside target when they were killed.
//
// Commit or Abort must be called.
func Begin(target string, replace bool) (*Dir, error) {
	target, err := resolve(target)
	if err != nil {
		return nil, err
	}
	if err := checkTarget(target, replace); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
		return nil, err
	}
	sweep(target)
	for range 10 {
		d, err := makeAside(target)
		if errors.Is(err, filelock.ErrHeld) || errors.Is(err, fs.ErrNotExist) {
			continue // another process has just swept it, before it was locked
		}
		return d, err
	}
	return nil, fmt.Errorf("%s: can not make a directory beside it", target)
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
		return abs, nil
	}
	return real, err
}

func checkTarget(target string, replace bool) error {
	if filepath.Dir(target) == target {
		return fmt.Errorf("%s: a root directory can not be replaced", target)
	}
	entries, err := os.ReadDir(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0 && !replace:
		return fmt.Errorf("%s: %w", target, ErrNotEmpty)
	}
	return nil
}

// prefix is what the names of the directories beside target begin with.
func prefix(target string) string { return "." + filepath.Base(target) + ".holdfast-" }

const (
	newName  = "new"
	lockName = "lock"
)

func makeAside(target string) (*Dir, error) {
	d := &Dir{target: target}
	d.aside = filepath.Join(filepath.Dir(target), prefix(target)+strings.ToLower(rand.Text()))
	if err := os.Mkdir(d.aside, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(d.aside)
	if err != nil {
		return nil, err
	}
	d.root = root
	d.lock, err = filelock.TryLock(root, lockName)
	if err == nil {
		err = root.Mkdir(newName, 0o777)
	}
	if err != nil {
		return nil, errors.Join(err, d.Abort())
	}
	return d, nil
}

// sweep removes what dead processes left beside target. It is best effort.
func sweep(target string) {
	asides, _ := filepath.Glob(filepath.Join(escapeGlob(filepath.Dir(target)), escapeGlob(prefix(target))+"*"))
	for _, aside := range asides {
		root, err := os.OpenRoot(aside)
		if err != nil {
			continue
		}
		lock, err := filelock.TryLock(root, lockName)
		if err == nil {
			_ = removeAll(filepath.Join(aside, newName))
			_ = errors.Join(lock.Remove(), os.Remove(aside))
		}
		_ = root.Close()
	}
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`*`, `[*]`, `?`, `[?]`, `[`, `[[]`, `\`, `\\`).Replace(s)
}

// Path returns the directory to put things into.
func (d *Dir) Path() string { return filepath.Join(d.aside, newName) }

// Commit makes what was built durable and then the target's content. When it
// fails, the target is as it was.
func (d *Dir) Commit() error {
	err := syncTree(d.Path())
	if err == nil {
		err = d.publish()
	}
	if err == nil {
		err = syncDir(filepath.Dir(d.target))
	}
	return errors.Join(err, d.Abort())
}

func (d *Dir) publish() error {
	err := os.Rename(d.Path(), d.target) // also over an empty directory
	if err == nil || !isNotEmpty(err) {
		return err
	}
	if err := exchange(d.Path(), d.target); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	old := filepath.Join(d.aside, "old")
	if err := os.Rename(d.target, old); err != nil {
		return err
	}
	if err := os.Rename(d.Path(), d.target); err != nil {
		return errors.Join(err, os.Rename(old, d.target))
	}
	return removeAll(old)
}

// Abort removes what was built. After Commit it does nothing.
func (d *Dir) Abort() error {
	if d.root == nil {
		return nil
	}
	err := removeAll(d.Path())
	if d.lock != nil {
		err = errors.Join(err, d.lock.Remove())
	}
	err = errors.Join(err, d.root.Close(), os.Remove(d.aside))
	d.root = nil
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

func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // which refuses it
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
