// Package atomicdir builds a new directory beside a target path and puts it in the
// target's place in one step. At every moment, also after the process was killed, the
// target is either the complete old directory or the complete new one.
//
// On Linux and macOS, one system call exchanges an existing directory for the new
// one. Where the system or the file system has no such call, the old directory is
// renamed first. A process that is killed between the two renames leaves no target,
// and both directories beside it; the next Begin puts the old one back.
//
// Once Commit has returned, the result survives a loss of power, unless BeginTransient
// was called. A loss of power
// before that leaves the old directory or the new one, as a kill does. This holds
// also on a file system that makes each name durable separately and in any order.
// (Where the old directory has to be renamed first, it holds only on a file system
// with an ordered journal: see package powerloss.)
//
// # Other users who may write to the parent
//
// The new directory is built with permissions for its owner alone, so nobody else can
// put anything into it. But whoever may change names in the target's parent can
// rename what is there, or put something else under its name, at any moment. Against
// that:
//
//   - The parent and the new directory are held open by their descriptors, names are looked up relative to these, and no symbolic link is followed.
//   - Before a directory is replaced or removed, its device and inode are compared with those of the directory that was made or found earlier.
//
// So nothing is written, changed or removed except the new directory and, if it is
// replaced, the directory that was the target when Begin looked.
//
// Such users can still make the operation fail, rename the new directory while it is
// being built, and replace the target before or after Commit. Between a check of a
// name and its use they can also cause the removal of an empty directory, or of a
// file that they put in the place of the lock file; they could remove either
// themselves. Begin resolves the directories above the parent once, and trusts them.
// On systems other than Unix, this package cannot tell who may write to a directory,
// and gives only the protection that os.Root gives.
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

// ErrNotEmpty means that the target exists, is not empty, and replace was not set.
var ErrNotEmpty = errors.New("the directory is not empty")

// A Dir is a directory that is being built. Only one goroutine may use it at a time.
type Dir struct {
	step    stepFunc
	parent  *folder // nil once the Dir is closed
	shared  bool    // other users may change names in parent
	target  string  // a name in parent
	replace bool
	old     *folder // the directory that was the target when Begin looked; nil if there was none

	aside string  // the name in parent of the new directory; after an exchange, of the old one
	built *folder // the new directory; nil until it is made
	tried bool    // a rename was attempted, so built may have become the target
	lock  *filelock.Lock
	made  []*folder // directories that got a new subdirectory when the target's parents were made
}

// A stepFunc performs one step that changes the disk or makes a change durable: op on
// the file or directory at path. Tests replace it, to record steps and to make them
// fail. It may be called from several goroutines at once.
type stepFunc func(op, path string, do func() error) error

func perform(_, _ string, do func() error) error { return do() }

// unsynced leaves out the steps that make something durable.
func unsynced(step stepFunc) stepFunc {
	return func(op, path string, do func() error) error {
		if op == "sync" || op == "syncall" {
			return nil
		}
		return step(op, path, do)
	}
}

// The new directory is built beside the target, as ".target.holdfast-<random>". The
// process that builds it holds a lock on a file with the same name and the suffix
// ".lock". The lock file is made first and removed last, so a directory whose process
// is dead can always be recognized. Both are in the target's parent: a directory that
// its owner may not write can be renamed only within its parent.
const (
	lockSuffix = ".lock"
	oldSuffix  = ".old" // the old directory, if it could not be exchanged
)

// prefix is the beginning of all names that a Dir makes beside the target.
func (d *Dir) prefix() string { return "." + d.target + ".holdfast-" }

// Begin starts to build a new directory for the path target. It makes target's
// parents if they are missing, and removes what killed processes left beside target.
// If target exists and is not empty, Begin fails with ErrNotEmpty unless replace is
// set.
//
// The caller must call Commit or Abort.
func Begin(target string, replace bool) (*Dir, error) { return start(target, replace, perform) }

// BeginTransient is Begin for a directory that need not outlive a loss of power, after
// which the target may be anything. It never waits for the disk. What a kill leaves is
// as for Begin.
func BeginTransient(target string, replace bool) (*Dir, error) {
	return start(target, replace, unsynced(perform))
}

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

// takeLock takes the lock of a new random name.
func (d *Dir) takeLock() (err error) {
	for range 10 {
		d.aside = d.prefix() + strings.ToLower(rand.Text())
		d.lock, err = d.tryLock(d.aside)
		if !errors.Is(err, filelock.ErrHeld) {
			return err
		}
	}
	return err // each time, another process removed the lock file before it was locked
}

func (d *Dir) tryLock(name string) (lock *filelock.Lock, err error) {
	name += lockSuffix
	err = d.step("lock", d.parent.path(name), func() error {
		lock, err = filelock.TryLock(d.parent.Root, name, 0o600) // its content will be trusted, so only its owner may write it
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

// checkNew checks, as far as that is possible, that a directory is the one that this
// process has just made: it must be empty, and nobody else may have any right to it.
func (d *Dir) checkNew(made *folder) error {
	lock, err := d.lock.File().Stat() // made by this process, with permissions for its owner alone
	if err != nil {
		return err
	}
	entries, err := made.list()
	if err != nil {
		return err
	}
	// Some file systems ignore modes, and give one mode to all files and another to
	// all directories. There, whoever may read files may also enter directories.
	may := lock.Mode().Perm()
	may |= (may & 0o044) >> 2
	others := made.info.Mode().Perm() & 0o077
	if len(entries) > 0 || others&^may != 0 || !sameOwner(made.info, lock) || !sameDevice(made.info, d.parent.info) {
		return tampered(d.parent.path(d.aside))
	}
	return nil
}

// Root returns the new directory, for the caller to fill. The Dir closes it. Nobody
// else has permission to enter it before Commit.
func (d *Dir) Root() *os.Root { return d.built.Root }

// Old returns the directory that will be replaced, or nil if there is none. The Dir
// closes it.
func (d *Dir) Old() *os.Root {
	if d.old == nil {
		return nil
	}
	return d.old.Root
}

// Commit makes the new directory durable and then puts it in the target's place. If
// it fails, the target is as it was, unless only the last fsync failed: then the
// target may be the new directory, but is not durable yet. If parts of the old
// directory cannot be removed, the next Begin removes them.
//
// finish is called last, when the content is durable. It gives the directory itself
// its final permissions, times and owner. If finish is nil, the directory gets the
// permissions of any newly made directory.
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
	_ = d.Abort() // the new directory is in place; this removes the old one
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

// asNew gives a directory the permissions that a newly made directory gets there,
// according to the umask and the file system.
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

// publish puts the new directory in the target's place.
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
	if !d.replace { // the target was empty when Begin looked
		return fmt.Errorf("%s: %w", d.parent.path(d.target), ErrNotEmpty)
	}
	if err := checkMounts(d.parent.path(d.target)); err != nil { // something may have been mounted since Begin looked
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
		_ = d.exchange() // exchange back; this fails only if someone interferes again
		err = tampered(d.parent.path(d.target))
	}
	return err
}

// letGo closes the directories that are about to be renamed, on systems where an open
// directory may not be renamed.
func (d *Dir) letGo() {
	if runtime.GOOS != "windows" {
		return
	}
	_ = d.built.close()
	if d.old != nil {
		_ = d.old.close()
	}
}

// isOld reports whether the directory with this name may be replaced. Where other
// users may change names, it must be the directory that was the target when Begin
// looked.
func (d *Dir) isOld(name string) bool {
	return !d.shared || d.old != nil && d.parent.has(name, d.old)
}

func (d *Dir) exchange() error {
	return d.step("exchange", d.parent.path(d.target), func() error { return exchange(d.parent, d.aside, d.target) })
}

// moveAndRename does in two steps what exchange does in one.
func (d *Dir) moveAndRename() error {
	d.tried = true
	old := d.aside + oldSuffix
	if err := d.rename(d.target, old); err != nil {
		return err
	}
	if !d.isOld(old) {
		_ = d.rename(old, d.target) // rename back; this fails only if someone interferes again
		return tampered(d.parent.path(d.target))
	}
	return d.rename(d.aside, d.target) // if it fails, release puts the old directory back
}

func (d *Dir) rename(from, to string) error {
	return d.step("rename", d.parent.path(to), func() error { return rename(d.parent, from, to) })
}

// settle makes the names on the path to the target durable.
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

// leave keeps what is beside the target, for the next Begin to remove. It may be the
// old directory, and after a loss of power that may be needed again.
func (d *Dir) leave() error { return errors.Join(d.lock.Unlock(), d.close()) }

// Abort removes the new directory. After Commit it does nothing.
func (d *Dir) Abort() error {
	if d.parent == nil {
		return nil
	}
	return errors.Join(d.discard(), d.release(d.lock, d.aside, d.known()), d.close())
}

// discard prepares the new directory for its removal by name. If someone has given
// its name to another file, discard removes the content through the descriptor.
func (d *Dir) discard() error {
	if d.built == nil {
		return nil
	}
	there := d.parent.has(d.aside, d.built)
	if !there && d.tried {
		return nil // it may be the target now
	}
	_ = d.built.file.Chmod(0o700) // the permissions that finish set may prevent the removal
	if there {
		return nil
	}
	err := d.step("remove", d.parent.path(d.aside), func() error { return clearOut(d.built.Root) })
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // someone has removed the directory itself
	}
	return err
}

// known returns the directories beside the target that this process may remove.
func (d *Dir) known() (list []identity) {
	for _, f := range []*folder{d.built, d.old} {
		if f != nil {
			list = append(list, identityOf(f.info))
		}
	}
	return list
}

// close closes all descriptors.
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
