package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/holdfast-io/holdfast/backend"
)

func init() { backend.Register("file", OpenURL) }

// OpenURL opens the store that u names, as file:///path. An error about the URL
// wraps backend.ErrInvalid. The caller closes the store.
func OpenURL(ctx context.Context, u *url.URL) (backend.Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := directory(u)
	if err != nil {
		return nil, err
	}
	s, err := New(dir)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// directory returns the directory that u names.
func directory(u *url.URL) (string, error) {
	if err := backend.NewParams(u).Err(); err != nil {
		return "", err
	}
	if u.Host != "" && u.Host != "localhost" || u.Opaque != "" {
		return "", backend.Invalidf("store URL %q has no absolute path; write %s", u, absolute(u.Opaque+u.Host+u.EscapedPath()))
	}
	if path.Clean("/"+u.Path) == "/" {
		return "", backend.Invalidf("store URL %q names no directory; write file:///path", u)
	}
	if runtime.GOOS == "windows" {
		return filepath.FromSlash(strings.TrimPrefix(u.Path, "/")), nil // file:///C:/dir
	}
	return u.Path, nil
}

// absolute says how to write what may be meant by a URL with a path that is
// not absolute.
func absolute(path string) string {
	first, rest, _ := strings.Cut(path, "/")
	switch first {
	case "~":
		return "file://$HOME/" + rest
	case ".":
		return "file://$PWD/" + rest
	case "..":
		return "file://$PWD/" + path
	}
	return fmt.Sprintf("file:///%s, or file://$PWD/%s if it is in the working directory", path, path)
}

// A Store keeps objects below one directory. See [backend.Store] for what its
// methods promise, and the package for what is particular to it.
type Store struct {
	dir  string // absolute
	name string // as a URL
	step stepFunc

	mu     sync.Mutex
	root   *os.Root    // nil until the directory has been seen
	info   fs.FileInfo // of root
	calls  int         // under way
	closed bool

	// What writing has prepared. first is taken before mu.
	first   sync.Mutex
	temps   *temps          // nil until the first write
	durable map[string]bool // directories whose names outlive a loss of power

	// settling is held while what was seen is made durable. It is taken before mu.
	settling sync.Mutex
	seen     map[string]bool // directories in which objects were found since
}

var _ backend.Store = (*Store)(nil)

// New returns the store in dir, which need not exist yet. A relative path is
// taken from the working directory of this moment. The caller closes it.
func New(dir string) (*Store, error) {
	if dir == "" || strings.ContainsRune(dir, 0) {
		return nil, backend.Invalidf("%q is not the path of a directory", dir)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	slashed := "/" + strings.TrimPrefix(filepath.ToSlash(dir), "/")
	u := url.URL{Scheme: "file", Path: slashed}
	s := &Store{dir: dir, name: u.String(), step: perform, durable: make(map[string]bool), seen: make(map[string]bool)}
	if _, err := s.look(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, s.fail("open", "", err)
	}
	return s, nil
}

// look returns the directory, opened, and an error that is fs.ErrNotExist if
// it does not exist yet. Each call of the Store begins with it, so that a
// directory that was removed, unmounted or replaced is not read or written as
// if it were still the one that the path names.
func (s *Store) look() (*os.Root, error) {
	now, err := os.Stat(s.dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root != nil && errors.Is(err, fs.ErrNotExist) {
		now, err = os.Stat(s.dir) // another call may have made and opened it since
	}
	switch {
	case s.root != nil && (errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, s.info)):
		return nil, fmt.Errorf("%w: the directory was removed or replaced while it was in use; open it again", backend.ErrNoStore)
	case errors.Is(err, fs.ErrNotExist):
		if _, _, err := existing(s.dir); err != nil {
			return nil, err
		}
		return nil, err
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP), err == nil && !now.IsDir():
		return nil, fmt.Errorf("%w: not a directory", backend.ErrNoStore)
	case err != nil:
		return nil, err
	case s.root == nil:
		return s.openRoot()
	default:
		return s.root, nil
	}
}

func (s *Store) openRoot() (*os.Root, error) {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, err
	}
	info, err := root.Stat(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	s.root, s.info = root, info
	return root, nil
}

// enter begins a call, which ends with leave unless it fails.
func (s *Store) enter(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return backend.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.calls++
	return nil
}

func (s *Store) leave() {
	s.mu.Lock()
	s.calls--
	last := s.closed && s.calls == 0
	s.mu.Unlock()
	if last {
		s.release()
	}
}

// Close closes the handle. Calls that are under way go on, and the last of
// them removes the handle's temporary files.
func (s *Store) Close() error {
	s.mu.Lock()
	last := !s.closed && s.calls == 0
	s.closed = true
	s.mu.Unlock()
	if last {
		s.release()
	}
	return nil
}

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// release gives back what the handle holds. It has no errors to report: what
// could not be removed is swept by the next handle that writes.
func (s *Store) release() {
	s.forget(s.temps)
	if s.root != nil {
		_ = s.root.Close()
	}
}

// Create makes a new object.
func (s *Store) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	o, err := s.write(ctx, key, data, (*draft).link)
	return o, s.fail("create", key, err)
}

// Put makes an object, or replaces it.
func (s *Store) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	o, err := s.write(ctx, key, data, (*draft).rename)
	return o, s.fail("put", key, err)
}

// Get reads a part of an object.
func (s *Store) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	n, err := s.read(ctx, key, offset, p)
	return n, s.fail("get", key, err)
}

func (s *Store) read(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	defer s.leave()
	if err := backend.CheckKey(key); err != nil {
		return 0, err
	}
	root, err := s.look()
	if err != nil {
		return 0, err
	}
	if err := isObject(root, key); err != nil {
		return 0, err
	}
	f, err := root.Open(key)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s.saw(path.Dir(key))
	return readAt(ctx, f, offset, p)
}

// isObject returns an error, which is fs.ErrNotExist if no object stands at
// key.
func isObject(root *os.Root, key string) error {
	info, err := root.Lstat(key)
	if errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%w: %w", backend.ErrNotExist, err)
	}
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: not a regular file", backend.ErrNotExist)
	}
	return err
}

// readAt fills p from f, beginning at offset.
func readAt(ctx context.Context, f *os.File, offset int64, p []byte) (int, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if len(p) == 0 || offset < 0 || offset > 0 && offset >= info.Size() {
		return 0, fmt.Errorf("%w: %d bytes at %d of %d", backend.ErrRange, len(p), offset, info.Size())
	}
	n := 0
	for n < len(p) {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		m, err := f.ReadAt(p[n:min(n+piece, len(p))], offset+int64(n))
		n += m
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Delete removes objects.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if err := s.enter(ctx); err != nil {
		return s.fail("delete", "", err)
	}
	defer s.leave()
	for _, key := range keys {
		if err := backend.CheckKey(key); err != nil {
			return s.fail("delete", key, err)
		}
	}
	root, err := s.look()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever written
	}
	if err != nil {
		return s.fail("delete", "", err)
	}
	if err := s.settleSeen(root); err != nil {
		return s.fail("delete", "", err)
	}
	var errs []error
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			errs = append(errs, s.fail("delete", key, err))
			break
		}
		errs = append(errs, s.fail("delete", key, s.remove(root, key)))
	}
	return errors.Join(errs...)
}

// saw notes that objects were found in a directory.
func (s *Store) saw(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[dir] = true
}

// settleSeen makes durable what this handle has found. Who deletes goes by what
// was found, and an object that another process is about to make can be found
// before its name is durable: if a loss of power took that away and left the
// deletion, what is needed again would be gone. ext4 and XFS do not do that, as
// they keep to the order of what was done; Btrfs may.
func (s *Store) settleSeen(root *os.Root) error {
	s.settling.Lock()
	defer s.settling.Unlock()
	s.mu.Lock()
	seen := slices.Collect(maps.Keys(s.seen))
	clear(s.seen)
	s.mu.Unlock()
	for i, dir := range seen {
		err := s.syncDir(dir, root.Open)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for _, dir := range seen[i:] {
			s.saw(dir)
		}
		return fmt.Errorf("nothing was deleted: making durable what it is deleted for: %w", err)
	}
	return nil
}

// remove removes one object. Directories and whatever else is not an object
// stay.
func (s *Store) remove(root *os.Root, key string) error {
	err := isObject(root, key)
	if err == nil {
		err = s.step("remove", key, func() error { return root.Remove(key) })
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
