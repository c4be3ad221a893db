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

// piece is how many bytes are written or read between two looks at the
// context: some milliseconds' worth.
const piece = 1 << 20

// A stepFunc performs one step that changes what is on disk: op on the file or
// directory name, relative to the store's own. Tests put their own in its
// place to record steps, to fail them before or after they happen, and to do
// something in between.
type stepFunc func(op, name string, do func() error) error

func perform(_, _ string, do func() error) error { return do() }

// A draft is an object on its way: a temporary file that gets its key once it
// is whole and durable.
type draft struct {
	step stepFunc
	root *os.Root
	key  string
	dir  *os.File // the directory of key, open for fsync
	temp string   // the temporary file's name; empty when it has none any more
	file *os.File
}

// errTaken is the one error by which a Create fails with ErrExist.
var errTaken = fmt.Errorf("the key is taken: %w", backend.ErrExist)

// write publishes data at key. place gives the draft its key.
func (s *Store) write(ctx context.Context, key string, data []byte, place func(*draft) error) (backend.Object, error) {
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
		t, err = s.publish(ctx, temps, key, data, place)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return backend.Object{}, s.uprooted(temps, err)
	case errors.Is(err, fs.ErrExist) && !errors.Is(err, errTaken):
		return backend.Object{}, unsettled{err}
	case err != nil:
		return backend.Object{}, err
	}
	return backend.Object{Key: key, Size: int64(len(data)), ModTime: t}, nil
}

// uprooted turns the failure of a write that lost a directory while it was
// under way into ErrNoStore if it was the store's own, and otherwise into an
// error that is worth another attempt, which will make directories again.
func (s *Store) uprooted(temps *temps, err error) error {
	s.forget(temps)
	if _, err := s.look(); errors.Is(err, backend.ErrNoStore) {
		return err
	}
	return unsettled{err}
}

// publish takes the steps in the one order that leaves no moment at which a
// part of the object can be seen, nor one at which a loss of power can take
// away an object whose write has returned.
func (s *Store) publish(ctx context.Context, temps *temps, key string, data []byte, place func(*draft) error) (time.Time, error) {
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
	if err := place(d); err != nil {
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

// rename gives the draft its key, and takes that away from any other object.
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

// link gives the draft its key if the key is free. Of all who try, the file
// system lets one succeed.
func (d *draft) link() error {
	err := d.step("link", d.key, func() error { return d.root.Link(d.temp, d.key) })
	if isAny(err, noLinks) {
		err = d.step("rename", d.key, d.renameNew)
	}
	if err == nil {
		return nil
	}
	return d.verdict(err)
}

// renameNew is link where there are no hard links.
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

// verdict says what it means that link failed: nil if the object is there all
// the same, errTaken if another one is.
func (d *draft) verdict(failed error) error {
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

// holder returns what stands at key, nil if nothing does, and whether it is
// this draft. On a network file system the reply to a call that took effect can
// be lost and its repetition fail: link(2) and rename(2) say to look.
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

// settle makes the draft's new name durable and drops the temporary one. It
// returns the time at which the object got its name: the inode's change time
// of now, before the temporary name goes and changes it again. An owner that
// was suspended here must not take itself for fresher than its commit is.
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

// syncDir makes what stands at key durable. An object that another process has
// made may not be so yet.
func (d *draft) syncDir() error {
	if err := d.step("syncdir", path.Dir(d.key), func() error { return syncDir(d.dir) }); err != nil {
		return unsettled{fmt.Errorf("making the name durable: %w", err)}
	}
	return nil
}

// discard closes the file and removes its temporary name, if it still has one.
// A name that cannot be removed goes with the next sweep.
func (d *draft) discard() {
	if d.file != nil {
		_ = d.file.Close() // its data is durable, or of no use
		d.file = nil
	}
	if d.temp != "" {
		_ = d.step("remove", d.temp, func() error { return d.root.Remove(d.temp) })
		d.temp = ""
	}
}
