package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// piece is the number of bytes that are written or read between two checks of the
// context. That takes some milliseconds.
const piece = 1 << 20

// A stepFunc performs one step that changes the disk: op on the file or directory
// name, which is relative to the store's directory or absolute. Tests replace it, to
// record steps, to make them fail before or after they take effect, and to do
// something in between.
type stepFunc func(op, name string, do func() error) error

func perform(_, _ string, do func() error) error { return do() }

// A draft is an object that is being written: a temporary file that gets its key once it
// is complete and durable.
type draft struct {
	step stepFunc
	root *os.Root
	key  string
	dir  *os.File // the directory of key, open for fsync
	temp string   // the temporary file's name; empty once it has none
	file *os.File
}

// errTaken is the only error by which a Create fails with ErrExist.
var errTaken = fmt.Errorf("the key is taken: %w", backend.ErrExist)

// write publishes data at key. setKey is the method by which the draft gets its key.
func (s *Store) write(ctx context.Context, key string, data []byte, setKey func(*draft) error) (backend.Object, error) {
	if err := s.enter(ctx); err != nil {
		return backend.Object{}, err
	}
	defer s.leave()
	if err := backend.CheckKey(key); err != nil {
		return backend.Object{}, err
	}
	var t time.Time
	temps, err := s.prepare(ctx)
	if err == nil {
		t, err = s.publish(ctx, temps, key, data, setKey)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return backend.Object{}, s.directoryLost(temps, err)
	case errors.Is(err, fs.ErrExist) && !errors.Is(err, errTaken):
		return backend.Object{}, unsettled{err}
	case err != nil:
		return backend.Object{}, err
	}
	return backend.Object{Key: key, Size: int64(len(data)), ModTime: t}, nil
}

// directoryLost handles a write that failed because a directory disappeared. If it was the
// store's own, the error is ErrNoStore. Otherwise it is retryable, and the next
// attempt makes the directories again.
func (s *Store) directoryLost(temps *temps, err error) error {
	s.forget(temps)
	if _, err := s.openedRoot(); errors.Is(err, backend.ErrNoStore) {
		return err
	}
	return unsettled{err}
}

// publish writes the data, syncs it, gives it its key, and syncs the directory, in
// this order. So nobody ever sees a part of an object, and a loss of power cannot
// undo a write that has returned.
func (s *Store) publish(ctx context.Context, temps *temps, key string, data []byte, setKey func(*draft) error) (time.Time, error) {
	root := temps.root
	dir, err := s.openDir(root, path.Dir(key))
	if err != nil {
		return time.Time{}, err
	}
	defer dir.Close()
	d := &draft{step: s.step, root: root, key: key, dir: dir, temp: temps.next()}
	defer d.discard()
	if err := d.fill(ctx, data); err != nil {
		return time.Time{}, err
	}
	if err := setKey(d); err != nil {
		return time.Time{}, err
	}
	return d.settle()
}

// fill writes the temporary file and makes its content durable.
func (d *draft) fill(ctx context.Context, data []byte) error {
	err := d.step("create", d.temp, func() (err error) {
		d.file, err = d.root.OpenFile(d.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		return err
	})
	if err != nil {
		return err
	}
	for p := range slices.Chunk(data, piece) {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := d.step("write", d.temp, func() error {
			_, err := d.file.Write(p)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := d.step("sync", d.temp, d.file.Sync); err != nil {
		return err
	}
	return ctx.Err()
}

// rename gives the draft its key, and replaces any other object that has it.
func (d *draft) rename() error {
	failed := d.step("rename", d.key, func() error { return d.root.Rename(d.temp, d.key) })
	if failed == nil {
		d.temp = ""
		return nil
	}
	ours, there, err := d.holder()
	switch {
	case err != nil:
		return unsettled{errors.Join(failed, err)}
	case ours:
		return nil
	case there != nil && there.IsDir():
		return d.occupied(there)
	}
	return failed
}

// link gives the draft its key if the key is free. If several try at once, the file
// system lets only one succeed.
func (d *draft) link() error {
	err := d.step("link", d.key, func() error { return d.root.Link(d.temp, d.key) })
	if isAny(err, noLinks) {
		err = d.step("rename", d.key, d.renameNew)
	}
	if err == nil {
		return nil
	}
	return d.resolveFailedLink(err)
}

// renameNew replaces link on file systems without hard links.
func (d *draft) renameNew() error {
	tempDir, err := d.root.Open(path.Dir(d.temp))
	if err != nil {
		return err
	}
	defer tempDir.Close()
	err = renameNew(tempDir, path.Base(d.temp), d.dir, path.Base(d.key))
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w: the file system has neither hard links nor an exclusive rename; choose another one", backend.ErrUnsupported)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: d.temp, New: d.key, Err: err}
	}
	return nil
}

// resolveFailedLink finds out what a failed link means. It returns nil if the draft has the key
// after all, and errTaken if another object has it.
func (d *draft) resolveFailedLink(failed error) error {
	ours, there, err := d.holder()
	switch {
	case err != nil:
		return unsettled{errors.Join(failed, err)}
	case ours:
		return nil
	case !errors.Is(failed, fs.ErrExist):
		return failed
	case there != nil && !there.Mode().IsRegular():
		return d.occupied(there)
	}
	if err := d.syncDir(); err != nil {
		return err
	}
	return errTaken
}

// holder returns the file at key, or nil, and whether it is this draft. On a network
// file system, a call may take effect and its reply be lost; its repetition then
// fails. The manual pages of link(2) and rename(2) recommend to check with stat(2).
func (d *draft) holder() (ours bool, there fs.FileInfo, err error) {
	there, err = d.root.Lstat(d.key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	draft, err := d.file.Stat()
	return err == nil && os.SameFile(draft, there), there, err
}

func (d *draft) occupied(by fs.FileInfo) error {
	return backend.Invalidf("%s of mode %v, which is not an object, has this name; move it away", d.key, by.Mode())
}

// settle removes the draft's temporary name and makes the new one durable. It returns
// the time at which the object got its key: the inode's change time, read before the
// temporary name is removed, because that changes it again. A later time would be
// wrong: if the process is suspended at this point, its owner would take the commit
// for newer than it is.
func (d *draft) settle() (time.Time, error) {
	var info fs.FileInfo
	err := d.step("stat", d.key, func() (err error) {
		info, err = d.file.Stat()
		return err
	})
	if err != nil {
		return time.Time{}, unsettled{err}
	}
	d.discard()
	if err := d.syncDir(); err != nil {
		return time.Time{}, err
	}
	return changeTime(info), nil
}

// syncDir makes the name of the object at key durable. Even if another process made
// the object, its name may not be durable yet.
func (d *draft) syncDir() error {
	if err := d.step("syncdir", path.Dir(d.key), func() error { return syncDir(d.dir) }); err != nil {
		return unsettled{fmt.Errorf("making the name durable: %w", err)}
	}
	return nil
}

// discard closes the file and removes its temporary name, if it still has one. If
// that fails, a later sweep removes it.
func (d *draft) discard() {
	if d.file != nil {
		_ = d.file.Close() // the data is durable, or not needed
		d.file = nil
	}
	if d.temp != "" {
		_ = d.step("remove", d.temp, func() error { return d.root.Remove(d.temp) })
		d.temp = ""
	}
}
