package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"github.com/holdfast-io/holdfast/backend"
)

// prepare returns the handle's temporary files. At the handle's first write it makes
// missing directories, makes their names durable, and removes what dead processes
// left.
func (s *Store) prepare(ctx context.Context) (*temps, error) {
	s.first.Lock()
	defer s.first.Unlock()
	_, err := s.openedRoot()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if s.temps != nil {
		return s.temps, nil
	}
	if err := s.makeRoot(); err != nil {
		return nil, err
	}
	root, err := s.openedRoot()
	if err != nil {
		return nil, err
	}
	s.temps, err = s.openTemps(ctx, root)
	return s.temps, err
}

// forget discards what prepare has set up, so that the next write does it again. It
// keeps the temporary files if they are newer than t.
func (s *Store) forget(t *temps) {
	s.first.Lock()
	defer s.first.Unlock()
	clear(s.durable)
	if s.temps == t && t != nil {
		t.close()
		s.temps = nil
	}
}

// makeRoot makes the store's directory if it is missing. It makes durable the names
// of this directory and of all directories above it, because another process may have
// been killed after it made one of them. Existing directories that this process is
// not permitted to open are skipped.
func (s *Store) makeRoot() error {
	base, missing, err := existing(s.dir)
	if err != nil {
		return err
	}
	dir := base
	for i, name := range missing {
		dir = filepath.Join(dir, name)
		mode := fs.FileMode(0o777)
		if i == len(missing)-1 {
			mode = 0o700
		}
		err := s.step("mkdir", dir, func() error { return os.Mkdir(dir, mode) })
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		needed := len(missing) > 0 && len(dir) >= len(base)
		if err := s.syncDir(dir, os.Open); err != nil && (needed || !excused(err)) {
			return err
		}
	}
	return nil
}

func excused(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) || isAny(err, readOnly)
}

// existing returns the deepest existing directory on the path to dir, with symbolic
// links resolved, and the names that are missing below it. Its error is never
// fs.ErrNotExist.
func existing(dir string) (base string, missing []string, err error) {
	for {
		if _, err = os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		missing = append(missing, filepath.Base(dir))
		dir = filepath.Dir(dir)
	}
	slices.Reverse(missing)
	if err == nil {
		base, err = filepath.EvalSymlinks(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("%w: %s leads nowhere", backend.ErrNoStore, dir)
	}
	return base, missing, err
}

// openDir opens the directory that will contain an object, for fsync. It does this
// before the object is made, so that nothing is written if the directory cannot be
// opened.
func (s *Store) openDir(root *os.Root, dir string) (*os.File, error) {
	if err := s.makeDir(root, dir); err != nil {
		return nil, err
	}
	var f *os.File
	err := s.step("opendir", dir, func() (err error) {
		f, err = root.Open(dir)
		return err
	})
	return f, err
}

// makeDir makes dir if it is missing. Once per handle, it also makes dir's name
// durable: the process that made dir may not have done so yet.
func (s *Store) makeDir(root *os.Root, dir string) error {
	if dir == "." || s.isDurable(dir) {
		return nil
	}
	parent := path.Dir(dir)
	if err := s.makeDir(root, parent); err != nil {
		return err
	}
	err := s.step("mkdir", dir, func() error { return root.Mkdir(dir, 0o777) })
	if errors.Is(err, fs.ErrExist) {
		err = checkDir(root, dir)
	}
	if err != nil {
		return err
	}
	if err := s.syncDir(parent, root.Open); err != nil {
		return err
	}
	s.setDurable(dir)
	return nil
}

func checkDir(root *os.Root, dir string) error {
	info, err := root.Lstat(dir)
	if err == nil && !info.IsDir() {
		return backend.Invalidf("%s is in the way: it must be a directory, its mode is %v", dir, info.Mode())
	}
	return err
}

func (s *Store) isDurable(dir string) bool {
	s.first.Lock()
	defer s.first.Unlock()
	return s.durable[dir]
}

func (s *Store) setDurable(dir string) {
	s.first.Lock()
	defer s.first.Unlock()
	s.durable[dir] = true
}

// syncDir makes the names in the directory that open opens durable.
func (s *Store) syncDir(dir string, open func(string) (*os.File, error)) error {
	return s.step("syncdir", dir, func() error {
		f, err := open(dir)
		if err != nil {
			return err
		}
		return errors.Join(syncDir(f), f.Close())
	})
}

// syncDir makes the names in a directory durable. Windows has no such call.
func syncDir(f *os.File) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	err := f.Sync()
	if errors.Is(err, syscall.EINVAL) { // fsync(2): "does not support synchronization"
		return fmt.Errorf("%w: the file system has no fsync for directories: %w", backend.ErrUnsupported, err)
	}
	return err
}
