// Package filelock tells the files of a living process from those that a dead
// one left behind: a process holds a lock on a file for as long as it needs
// what belongs to it, and the operating system drops the lock when the process
// dies, however it dies.
//
// The locks are advisory: flock(2) on Linux, macOS and the BSDs, LockFileEx on
// Windows. On a network file system that is mounted without locks (NFS with
// nolock or local_lock) they exclude only processes of one machine.
package filelock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// ErrHeld means that someone else holds the lock, or held it and removed the
// file while TryLock was looking.
var ErrHeld = errors.New("the lock is held")

// A Lock is an exclusive lock on a file. It excludes every other Lock, also
// those of the same process. Its methods may not be called at the same time.
type Lock struct {
	root *os.Root
	name string
	file *os.File
}

// TryLock locks the file name in root, which it makes with permissions perm (before
// umask) if it is missing. It does not wait: it fails with ErrHeld if the lock is
// held, and with errors.ErrUnsupported where the system or the file system has no
// locks.
//
// root stays open until the Lock is given back.
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

// acquire locks the file and then makes sure that it is still the one that
// others find under its name: an earlier holder may have removed it between
// open and lock, and a lock on such a file excludes no one.
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

// File returns the file, which stays the Lock's to close. Its holder may read and
// write it.
func (l *Lock) File() *os.File { return l.file }

// Unlock gives the lock back and leaves the file.
func (l *Lock) Unlock() error {
	return errors.Join(unlock(l.file), l.file.Close())
}

// Remove removes the file and gives the lock back, in this order: nobody can
// lock it in between and believe that it still stands for something.
func (l *Lock) Remove() error {
	return errors.Join(l.root.Remove(l.name), l.Unlock())
}
