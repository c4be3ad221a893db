// Package filelock distinguishes files of living processes from those that dead ones
// left behind. A process holds a lock on a file for as long as it needs the files
// that belong to it. The operating system drops the lock when the process dies, for
// whatever reason.
//
// The locks are advisory: flock(2) on Linux, macOS and the BSDs, LockFileEx on
// Windows. On a network file system that is mounted without locks (NFS with nolock or
// local_lock), they exclude only processes of the same machine.
package filelock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// ErrHeld means that someone else holds the lock, or removed the file while TryLock
// was running.
var ErrHeld = errors.New("the lock is held")

// A Lock is an exclusive lock on a file. It excludes every other Lock, also those of
// the same process. Only one goroutine may use it at a time.
type Lock struct {
	root *os.Root
	name string
	file *os.File
}

// TryLock locks the file name in root. If the file is missing, TryLock makes it with
// permissions perm (before umask). It does not wait: it fails with ErrHeld if the
// lock is held, and with errors.ErrUnsupported where the system or the file system
// has no locks.
//
// The caller must keep root open until it has called Unlock or Remove.
func TryLock(root *os.Root, name string, perm os.FileMode) (*Lock, error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, perm)
	if err != nil {
		return nil, err
	}
	l := &Lock{root, name, f}
	if err := l.acquire(); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return l, nil
}

// acquire locks the file and then checks that the name still stands for it. An
// earlier holder may have removed the file between open and lock, and a lock on a
// removed file excludes nobody.
func (l *Lock) acquire() error {
	if err := lock(l.file); err != nil {
		return err
	}
	locked, err := l.file.Stat()
	if err != nil {
		return err
	}
	named, err := l.root.Lstat(l.name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(locked, named) {
		return ErrHeld
	}
	return err
}

// File returns the locked file, which the holder may read and write. Unlock and
// Remove close it.
func (l *Lock) File() *os.File { return l.file }

// Unlock releases the lock, and keeps the file.
func (l *Lock) Unlock() error {
	return errors.Join(unlock(l.file), l.file.Close())
}

// Remove removes the file and then releases the lock. In the other order, another
// process could lock the file just before it is removed.
func (l *Lock) Remove() error {
	return errors.Join(l.root.Remove(l.name), l.Unlock())
}
