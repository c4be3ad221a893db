package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/filetimes"
)

// A mirror keeps one directory like another. Nothing else writes to it.
type mirror struct {
	from, to string
	opts     Options
	have     map[string]entry // what is in the mirror, by path with slashes
}

// An entry is what a file was when it was copied.
type entry struct {
	mode    fs.FileMode
	size    int64
	modTime time.Time
	target  string // of a symbolic link

	// If a change of the file is sure to change them; otherwise zero.
	changed time.Time
	inode   uint64
}

// errMoving means that a file was written to, replaced or removed while it was copied.
var errMoving = errors.New("changed while it was copied")

func newMirror(from, to string, opts Options) *mirror {
	return &mirror{from, to, opts, map[string]entry{".": {mode: fs.ModeDir | 0o700}}}
}

// A pass makes the mirror what the directory is, as far as nothing moves meanwhile.
type pass struct {
	*mirror
	ctx    context.Context
	root   *os.Root // of from
	began  time.Time
	seen   map[string]bool
	moving error // the first thing that moved
}

// sync makes the mirror what the directory is. If it fails, a later call goes on from
// there.
func (m *mirror) sync(ctx context.Context) error {
	root, err := os.OpenRoot(m.from)
	if err != nil {
		return err
	}
	defer root.Close()
	p := &pass{mirror: m, ctx: ctx, root: root, began: time.Now(), seen: make(map[string]bool)}
	if err := m.openDirs(); err != nil {
		return err
	}
	if err := fs.WalkDir(root.FS(), ".", p.visit); err != nil {
		return err
	}
	if p.moving != nil {
		return p.moving
	}
	if err := p.removeOthers(); err != nil {
		return err
	}
	return m.closeDirs()
}

// ifGone returns errMoving for the error of a file in the directory that is not there any more.
// What is absent in the mirror is another matter.
func ifGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errMoving
	}
	return err
}

// visit brings one file. err is what is wrong with the directory, not with the mirror.
func (p *pass) visit(name string, d fs.DirEntry, err error) error {
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	if err == nil && name != "." && matches(p.opts.Exclude, name) {
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	if err == nil {
		err = p.bring(name)
	} else if name != "." {
		err = ifGone(err)
	}
	switch {
	case err == nil:
	case errors.Is(err, errMoving):
		if p.moving == nil {
			p.moving = fmt.Errorf("%s: %w", filepath.Join(p.from, filepath.FromSlash(name)), errMoving)
		}
		if d != nil && d.IsDir() {
			return fs.SkipDir
		}
	default:
		return fmt.Errorf("%s: %w", filepath.Join(p.from, filepath.FromSlash(name)), err)
	}
	return nil
}

func (p *pass) bring(name string) error {
	info, err := p.root.Lstat(filepath.FromSlash(name))
	if err != nil {
		return ifGone(err)
	}
	p.seen[name] = true
	old, ok := p.have[name]
	if ok && old.mode.Type() != info.Mode().Type() {
		if err := p.remove(name); err != nil {
			return err
		}
		ok = false
	}
	now := entry{mode: info.Mode(), size: info.Size(), modTime: info.ModTime()}
	switch {
	case info.IsDir():
		return p.bringDir(name, now, ok)
	case info.Mode().Type() == fs.ModeSymlink:
		return p.bringLink(name, now, old)
	case !info.Mode().IsRegular():
		return errors.New("it is no file, directory or symbolic link, so a checkpoint cannot hold it; leave it out of the directory")
	case matches(p.opts.Immutable, name):
		return p.bringImmutable(name, now, old)
	case ok && p.unchanged(info, old):
		return nil
	}
	return p.copyFile(name, info)
}

// unchanged reports whether a file is known to be as it was copied.
func (p *pass) unchanged(info fs.FileInfo, old entry) bool {
	if old.changed.IsZero() {
		return false
	}
	changed, inode := filetimes.Identity(info)
	return changed.Equal(old.changed) && inode == old.inode && info.Size() == old.size &&
		info.ModTime().Equal(old.modTime) && info.Mode() == old.mode
}

func (p *pass) bringDir(name string, now entry, exists bool) error {
	if !exists {
		if err := os.Mkdir(p.path(name), 0o700); err != nil {
			return err
		}
	}
	p.have[name] = now
	return nil
}

func (p *pass) bringLink(name string, now, old entry) error {
	target, err := p.root.Readlink(filepath.FromSlash(name))
	if err != nil {
		return ifGone(err)
	}
	if now.target = target; old.target == target {
		return nil
	}
	if err := p.remove(name); err != nil {
		return err
	}
	if err := os.Symlink(target, p.path(name)); err != nil {
		return err
	}
	p.have[name] = now
	return nil
}

// bringImmutable links a file that is never changed.
func (p *pass) bringImmutable(name string, now, old entry) error {
	if old.mode.IsRegular() && old.size == now.size && !old.modTime.IsZero() {
		return nil
	}
	if err := p.remove(name); err != nil {
		return err
	}
	if err := os.Link(filepath.Join(p.from, filepath.FromSlash(name)), p.path(name)); err != nil {
		if _, gone := p.root.Lstat(filepath.FromSlash(name)); gone != nil {
			return ifGone(gone)
		}
		return err
	}
	p.have[name] = now
	return nil
}

// path returns where the mirror has a file.
func (m *mirror) path(name string) string { return filepath.Join(m.to, filepath.FromSlash(name)) }

// remove removes what the mirror has under a name, and all below it.
func (m *mirror) remove(name string) error {
	if err := os.RemoveAll(m.path(name)); err != nil {
		return err
	}
	wasDir := m.have[name].mode.IsDir()
	delete(m.have, name)
	if wasDir {
		maps.DeleteFunc(m.have, func(other string, _ entry) bool { return strings.HasPrefix(other, name+"/") })
	}
	return nil
}

// removeOthers removes what is not in the directory any more.
func (p *pass) removeOthers() error {
	for name := range p.have {
		if p.seen[name] {
			continue
		}
		if err := os.RemoveAll(p.path(name)); err != nil {
			return err
		}
		delete(p.have, name)
	}
	return nil
}

// openDirs makes sure that the mirror's directories can be written to.
func (m *mirror) openDirs() error {
	for _, name := range m.dirs() {
		if m.have[name].mode.Perm()&0o700 != 0o700 {
			if err := os.Chmod(m.path(name), 0o700); err != nil {
				return err
			}
		}
	}
	return nil
}

// closeDirs gives the mirror's directories the permissions and times of their originals:
// the deepest first, because that changes the times of those above.
func (m *mirror) closeDirs() error {
	for _, name := range slices.Backward(m.dirs()) {
		e := m.have[name]
		if err := os.Chmod(m.path(name), e.mode); err != nil {
			return err
		}
		if err := os.Chtimes(m.path(name), e.modTime, e.modTime); err != nil {
			return err
		}
	}
	return nil
}

// dirs returns the mirror's directories, each before what is in it.
func (m *mirror) dirs() []string {
	var names []string
	for name, e := range m.have {
		if e.mode.IsDir() {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if a == "." || b == "." {
			return strings.Compare(strings.TrimPrefix(a, "."), strings.TrimPrefix(b, "."))
		}
		return strings.Compare(a, b)
	})
	return names
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, _ := path.Match(pattern, path.Base(name)) // patterns were checked
		return ok
	})
}

// removeTree is os.RemoveAll for trees whose directories may be read-only.
func removeTree(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(p, 0o700) // RemoveAll tells
		}
		return nil
	})
	return os.RemoveAll(dir)
}
