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

// tempDir contains the temporary files of all handles. No key can begin with a dot.
//
// Each handle that writes chooses a random id and locks the file <id>.lock. Its
// temporary files are <id>.0, <id>.1, and so on. If another handle gets the lock of
// an id, the process with that id has ended. No times are compared.
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

// openTemps sets up the handle's temporary files and removes those of dead processes.
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
			continue // another handle swept it just before it was locked
		}
		if errors.Is(err, errors.ErrUnsupported) {
			_ = t.removeFile(lockName(t.id))
			return t, nil // without locks, no handle can sweep
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

// sweep removes the temporary files of dead processes. It leaves what it cannot
// remove: that does no harm, and must not make a write fail.
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

// remove removes all temporary files except the lock of a handle that makes no new
// ones: a dead process's, or this one when it is closed. It lists the files itself,
// so that it misses none.
func (t *temps) remove(id string) {
	for _, name := range t.files()[id] {
		if name != lockName(id) {
			_ = t.removeFile(name)
		}
	}
}

// files returns the names of all temporary files, by the id of their handle.
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

// close removes the handle's remaining files and releases its lock.
func (t *temps) close() {
	t.remove(t.id)
	if t.lock != nil {
		t.unlock(t.id, t.lock)
	}
}
