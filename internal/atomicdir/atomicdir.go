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
//
// # Others who may write to the parent
//
// The directory is built with permissions for its owner alone, so nobody else can
// put anything into it. Whoever may change names in the target's parent can give
// its names to something else at any moment, though. So the parent is held by its
// descriptor, and so is what is built; names are looked up there, no link is
// followed, and before a directory is replaced or removed it is compared, by device
// and inode, with the one that was made or found. Nothing is written, changed or
// removed but what was built and, when it is replaced, the directory that was the
// target when Begin looked.
//
// What is left to them: they can make it fail, leave what was built under another
// name, and after Commit, as before it, put something else in the target's place.
// Between a look at a name and its use they can make an empty directory, or a file
// in the place of a lock's, be removed, which they could do themselves.
// Directories above the parent are taken for what their names lead to when Begin
// looks. On systems other than Unix it is not known who may write to a directory,
// and all of this holds only as far as os.Root does.
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
	step    stepFunc
	parent  *folder // nil when all is over
	shared  bool    // others may change names in parent
	target  string  // a name in parent
	replace bool
	old     *folder // what target was, or nil

	aside string  // a name in parent: of what is built, and after an exchange of what is old
	built *folder // nil until it is made
	tried bool    // it may have become the target
	lock  *filelock.Lock
	made  []*folder // directories in which one was missing on the way to parent
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

// prefix is what the names of all that is beside the target begin with.
func (d *Dir) prefix() string { return "." + d.target + ".holdfast-" }

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
	d := &Dir{step: step, target: filepath.Base(target), replace: replace}
	if d.parent, err = d.openParent(filepath.Dir(target)); err != nil {
		return nil, errors.Join(err, d.close())
	}
	d.shared = isShared(d.parent.info)
	if err := d.takeLock(); err != nil {
		return nil, errors.Join(err, d.close())
	}
	d.sweep()
	if err = d.openTarget(); err == nil {
		err = d.makeAside()
	}
	if err != nil {
		return nil, errors.Join(err, d.Abort())
	}
	return d, nil
}

// takeLock takes the lock on a name that nobody has used.
func (d *Dir) takeLock() (err error) {
	for range 10 {
		d.aside = d.prefix() + strings.ToLower(rand.Text())
		d.lock, err = d.tryLock(d.aside)
		if !errors.Is(err, filelock.ErrHeld) {
			return err
		}
	}
	return err // others swept it each time before it was locked
}

func (d *Dir) tryLock(name string) (lock *filelock.Lock, err error) {
	name += lockSuffix
	err = d.step("lock", d.parent.path(name), func() error {
		lock, err = filelock.TryLock(d.parent.Root, name, 0o600) // what it says is trusted
		return err
	})
	return lock, err
}

// makeAside makes the directory to build in.
func (d *Dir) makeAside() error {
	path := d.parent.path(d.aside)
	if err := d.step("mkdir", path, func() error { return d.parent.Mkdir(d.aside, 0o700) }); err != nil {
		return err
	}
	made, err := d.parent.open(d.aside)
	if err != nil {
		return err
	}
	if err := d.checkNew(made); err != nil {
		return errors.Join(err, made.close())
	}
	d.built = made
	return d.note(made, d.old)
}

// checkNew makes sure that a directory is the one that was made, as far as can be
// told: it is empty, and nobody else has any right to it.
func (d *Dir) checkNew(made *folder) error {
	lock, err := d.lock.File().Stat() // which this process has made, for its owner alone
	if err != nil {
		return err
	}
	entries, err := made.list()
	if err != nil {
		return err
	}
	// A file system with modes of its own gives all directories one, and all files
	// another: who may read files there may enter directories.
	may := lock.Mode().Perm()
	may |= (may & 0o044) >> 2
	others := made.info.Mode().Perm() & 0o077
	if len(entries) > 0 || others&^may != 0 || !sameOwner(made.info, lock) || !sameDevice(made.info, d.parent.info) {
		return tampered(d.parent.path(d.aside))
	}
	return nil
}

// Root returns the directory to put things into, which is the Dir's to close.
// Nobody else has permission to enter it before Commit.
func (d *Dir) Root() *os.Root { return d.built.Root }

// Old returns the directory that is to be replaced, which is the Dir's to close,
// or nil if there is none.
func (d *Dir) Old() *os.Root {
	if d.old == nil {
		return nil
	}
	return d.old.Root
}

// Commit makes what was built durable and then the target's content. When it
// fails, the target is as it was, unless the error is that of making the last
// step durable. What cannot be removed of an old directory is left to the
// next Begin.
//
// The last thing that is done to what was built is to give the directory itself
// the permissions, times and owner that it is to have: finish does that. If it is
// nil, the directory gets the permissions of any new one.
func (d *Dir) Commit(finish func(*os.Root) error) error {
	err := d.syncTree()
	if err == nil {
		err = d.finish(finish)
	}
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

func (d *Dir) finish(do func(*os.Root) error) error {
	if do == nil {
		do = asNew
	}
	if err := d.step("finish", d.parent.path(d.aside), func() error { return do(d.built.Root) }); err != nil {
		return err
	}
	return d.orSyncAll(d.syncFolder(d.built))
}

// asNew gives a directory the permissions that a new one gets there, by the umask
// and the file system.
func asNew(dir *os.Root) error {
	name := ".holdfast-" + rand.Text()
	if err := dir.Mkdir(name, 0o777); err != nil {
		return err
	}
	info, err := dir.Lstat(name)
	if err := errors.Join(err, dir.Remove(name)); err != nil {
		return err
	}
	return dir.Chmod(".", info.Mode())
}

// publish makes what was built the target.
func (d *Dir) publish() error {
	if !d.parent.has(d.aside, d.built) {
		return tampered(d.parent.path(d.aside))
	}
	d.letGo()
	d.tried = true
	err := d.rename(d.aside, d.target)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if !d.replace { // it was empty when it was looked at
		return fmt.Errorf("%s: %w", d.parent.path(d.target), ErrNotEmpty)
	}
	if err := checkMounts(d.parent.path(d.target)); err != nil { // it may have come since
		return err
	}
	if !d.isOld(d.target) {
		return tampered(d.parent.path(d.target))
	}
	err = d.exchange()
	if errors.Is(err, errors.ErrUnsupported) {
		return d.moveAndRename()
	}
	if err == nil && !d.isOld(d.aside) {
		_ = d.exchange() // back, unless someone is in the way again
		err = tampered(d.parent.path(d.target))
	}
	return err
}

// letGo closes the directories that are about to be renamed, on a system that may
// not rename what is open.
func (d *Dir) letGo() {
	if runtime.GOOS != "windows" {
		return
	}
	_ = d.built.close()
	if d.old != nil {
		_ = d.old.close()
	}
}

// isOld reports whether a name stands for what may be replaced: where others may
// change names, that is the directory which was the target when Begin looked.
func (d *Dir) isOld(name string) bool {
	return !d.shared || d.old != nil && d.parent.has(name, d.old)
}

func (d *Dir) exchange() error {
	return d.step("exchange", d.parent.path(d.target), func() error { return exchange(d.parent, d.aside, d.target) })
}

// moveAndRename does in two steps what exchange would do in one.
func (d *Dir) moveAndRename() error {
	d.tried = true
	old := d.aside + oldSuffix
	if err := d.rename(d.target, old); err != nil {
		return err
	}
	if !d.isOld(old) {
		_ = d.rename(old, d.target) // back, unless someone is in the way again
		return tampered(d.parent.path(d.target))
	}
	return d.rename(d.aside, d.target) // if it fails, release puts the old one back
}

func (d *Dir) rename(from, to string) error {
	return d.step("rename", d.parent.path(to), func() error { return rename(d.parent, from, to) })
}

// settle makes the names on the way to the target durable.
func (d *Dir) settle() error {
	if err := d.syncFolder(d.parent); err != nil {
		return err
	}
	for _, dir := range d.made {
		if err := d.syncFolder(dir); err != nil {
			return err
		}
	}
	return nil
}

// leave leaves what is aside to the next Begin. It may be the old directory, and
// a loss of power may yet put that back.
func (d *Dir) leave() error { return errors.Join(d.lock.Unlock(), d.close()) }

// Abort removes what was built. After Commit it does nothing.
func (d *Dir) Abort() error {
	if d.parent == nil {
		return nil
	}
	return errors.Join(d.discard(), d.release(d.lock, d.aside, d.known()), d.close())
}

// discard makes what was built ready to be removed by its name, or, if that name has
// become another's, removes all that is in it.
func (d *Dir) discard() error {
	if d.built == nil {
		return nil
	}
	there := d.parent.has(d.aside, d.built)
	if !there && d.tried {
		return nil // it may be the target
	}
	_ = d.built.file.Chmod(0o700) // what finish gave it may be in the way
	if there {
		return nil
	}
	err := d.step("remove", d.parent.path(d.aside), func() error { return clearOut(d.built.Root) })
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // someone has removed the directory itself
	}
	return err
}

// known returns the directories beside the target that are this process's to
// remove.
func (d *Dir) known() (list []identity) {
	for _, f := range []*folder{d.built, d.old} {
		if f != nil {
			list = append(list, identityOf(f.info))
		}
	}
	return list
}

// close gives up all descriptors.
func (d *Dir) close() error {
	var err error
	for _, f := range append(d.made, d.parent, d.built, d.old) {
		if f != nil {
			err = errors.Join(err, f.close())
		}
	}
	d.parent = nil
	return err
}
