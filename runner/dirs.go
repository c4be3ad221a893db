package runner

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/filelock"
)

// A runDir is the run directory of a task, locked:
//
//	lock           held for as long as the task is owned
//	state          the state, or
//	state/<store>  each store of it
//	cuts           what the state is cut into, for an upload
type runDir struct {
	path string
	root *os.Root
	lock *filelock.Lock
}

const (
	lockName  = "lock"
	stateName = "state"
	cutsName  = "cuts"
)

// lockDir makes the run directory and locks it. What is in it stays: before the
// lock it may be in use, and before the claim it may be needed.
func lockDir(path string) (*runDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	lock, err := filelock.TryLock(root, lockName, 0o600)
	if errors.Is(err, filelock.ErrHeld) {
		err = fmt.Errorf("%s: %w: end the process that works in it, or give this task another directory", path, ErrDirInUse)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &runDir{path, root, lock}, nil
}

// sweep removes what an earlier run has left that this one does not use: its cuts,
// and stores that are not among those of the task. It makes the directories for
// those that are to come.
func (d *runDir) sweep(stores []string) error {
	if err := errors.Join(removeTree(d.cuts()), os.MkdirAll(d.cuts(), 0o700)); err != nil {
		return err
	}
	if len(stores) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(d.path, stateName), 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(d.path, stateName))
	if err != nil {
		return err
	}
	for _, e := range entries {
		// Names with a dot are those of restores that were killed, which sweep them.
		if strings.HasPrefix(e.Name(), ".") || slices.Contains(stores, e.Name()) {
			continue
		}
		if err := removeTree(filepath.Join(d.path, stateName, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// store returns where a store's state is; "" is that of a task without names.
func (d *runDir) store(name string) string { return filepath.Join(d.path, stateName, name) }

func (d *runDir) cuts() string { return filepath.Join(d.path, cutsName) }

// unlock gives the directory to whoever works in it next. The state stays, to be
// used again.
func (d *runDir) unlock() error { return errors.Join(d.lock.Unlock(), d.root.Close()) }

// makeEmpty makes path an empty directory: what it held belongs to no checkpoint.
func makeEmpty(path string) error { return errors.Join(removeTree(path), os.MkdirAll(path, 0o700)) }

// removeTree is os.RemoveAll for trees whose directories may be read-only.
func removeTree(path string) error {
	if os.RemoveAll(path) == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(p string, e os.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}

// dirName returns a name for a task's directory: one that people can read, any
// file system accepts, and no other task has, whatever it does with case.
func dirName(task string) string {
	readable := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, task)
	sum := sha256.Sum256([]byte(task))
	hash := base32.HexEncoding.EncodeToString(sum[:15])
	return readable[:min(len(readable), 40)] + "." + strings.ToLower(hash)
}
