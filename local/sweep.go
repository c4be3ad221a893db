package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strconv"
	"sync/atomic"

	"github.com/holdfast-io/holdfast/internal/filelock"
)

// tempDir holds the temporary files of all handles. No key begins with a dot.
//
// Each handle that writes draws a random id and locks the file <id>.lock; its
// temporary files are <id>.0, <id>.1, and so on. Whoever gets the lock of an
// id knows that its owner is gone, whatever the clocks say.
const tempDir = ".holdfast-tmp"

// tempName matches the names in tempDir; the first group is the handle's id.
var tempName = regexp.MustCompile(`^([0-9a-f]{16})\.(lock|[0-9]+)$`)

// temps are the temporary files of one handle.
type temps struct {
	step  stepFunc
	root  *os.Root
	id    string
	lock  *filelock.Lock // nil where there are no locks
	count atomic.Int64
}

// openTemps makes a place for temporary files and sweeps those of the dead.
func (s *Store) openTemps(ctx context.Context, root *os.Root) (*temps, error) {
	err := s.step("mkdir", tempDir, func() error { return root.Mkdir(tempDir, 0o777) })
	if errors.Is(err, fs.ErrExist) {
		err = checkDir(root, tempDir)
	}
	if err != nil {
		return nil, err
	}
	t := &temps{step: s.step, root: root}
	for t.lock == nil {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t.id = randomID()
		t.lock, err = t.tryLock(t.id)
		if errors.Is(err, filelock.ErrHeld) {
			continue // a sweep took it for dead before it was born
		}
		if errors.Is(err, errors.ErrUnsupported) {
			_ = t.removeFile(lockName(t.id))
			return t, nil // no locks here: nothing can be swept, nor will be
		}
		if err != nil {
			return nil, err
		}
	}
	t.sweep()
	return t, nil
}

func (t *temps) tryLock(id string) (lock *filelock.Lock, err error) {
	name := lockName(id)
	err = t.step("lock", name, func() error {
		lock, err = filelock.TryLock(t.root, name, 0o666)
		return err
	})
	return lock, err
}

func (t *temps) unlock(id string, lock *filelock.Lock) {
	_ = t.step("unlock", lockName(id), lock.Remove)
}

func (t *temps) removeFile(name string) error {
	return t.step("remove", name, func() error { return t.root.Remove(name) })
}

func randomID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return fmt.Sprintf("%x", b)
}

func lockName(id string) string { return path.Join(tempDir, id+".lock") }

// next returns the name of a new temporary file.
func (t *temps) next() string {
	return path.Join(tempDir, t.id+"."+strconv.FormatInt(t.count.Add(1), 10))
}

// sweep removes the temporary files of dead processes. What it cannot remove
// stays for a later one: that harms no one, and a write must not fail for it.
func (t *temps) sweep() {
	for id := range t.files() {
		if id == t.id {
			continue
		}
		lock, err := t.tryLock(id)
		if err != nil {
			continue
		}
		t.remove(id)
		t.unlock(id, lock)
	}
}

// remove removes the temporary files, except for the lock, of a handle that is
// dead or this one. It looks for them now that it is known to make no more.
func (t *temps) remove(id string) {
	for _, name := range t.files()[id] {
		if name != lockName(id) {
			_ = t.removeFile(name)
		}
	}
}

// files returns the names of all temporary files by their handles' ids.
func (t *temps) files() map[string][]string {
	dir, err := t.root.Open(tempDir)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	files := make(map[string][]string)
	for _, name := range names {
		if m := tempName.FindStringSubmatch(name); m != nil {
			files[m[1]] = append(files[m[1]], path.Join(tempDir, name))
		}
	}
	return files
}

// close removes what is left of the handle's files and gives up its lock.
func (t *temps) close() {
	t.remove(t.id)
	if t.lock != nil {
		t.unlock(t.id, t.lock)
	}
}
