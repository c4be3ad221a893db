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

// OpenURL opens the store at a URL of the form file:///path. An error about the URL
// wraps backend.ErrInvalid. The caller must close the store.
func OpenURL(ctx context.Context, u *url.URL) (backend.Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, mustExist, err := directory(u)
	if err != nil {
		return nil, err
	}
	s, err := open(dir, mustExist)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// directory returns the path of the directory in u, and whether it must exist.
func directory(u *url.URL) (dir string, mustExist bool, err error) {
	params := backend.NewParams(u)
	mustExist = params.Bool("must_exist")
	if err := params.Err(); err != nil {
		return "", false, err
	}
	if u.Host != "" && u.Host != "localhost" || u.Opaque != "" {
		return "", false, backend.Invalidf("store URL %q has no absolute path; write %s", u, absolute(u.Opaque+u.Host+u.EscapedPath()))
	}
	if path.Clean("/"+u.Path) == "/" {
		return "", false, backend.Invalidf("store URL %q names no directory; write file:///path", u)
	}
	if runtime.GOOS == "windows" {
		return filepath.FromSlash(strings.TrimPrefix(u.Path, "/")), mustExist, nil // file:///C:/dir
	}
	return u.Path, mustExist, nil
}

// absolute suggests how to write a URL whose path is not absolute.
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

// A Store keeps objects below one directory. See [backend.Store] for the contract of
// its methods, and the package's documentation for what is special about this driver.
// Any number of goroutines may use it at the same time.
type Store struct {
	dir  string // absolute
	name string // as a URL
	step stepFunc

	mustExist bool // as a store to which something was written: see mustexist.go

	mu     sync.Mutex
	root   *os.Root    // nil until the directory has been found
	info   fs.FileInfo // of root
	calls  int         // the number of calls that have not returned
	closed bool

	// Set up by the first write. first is locked before mu.
	first   sync.Mutex
	temps   *temps          // nil until the first write
	durable map[string]bool // directories whose names are durable

	// settling is held while the names of found objects are made durable. It is
	// locked before mu.
	settling sync.Mutex
	seen     map[string]bool // directories in which objects were found since the last Delete
}

var _ backend.Store = (*Store)(nil)

// New returns the store in dir, which need not exist yet. A relative path is relative
// to the present working directory. The caller must close the store.
func New(dir string) (*Store, error) { return open(dir, false) }

func open(dir string, mustExist bool) (*Store, error) {
	if dir == "" || strings.ContainsRune(dir, 0) {
		return nil, backend.Invalidf("%q is not the path of a directory", dir)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	slashed := "/" + strings.TrimPrefix(filepath.ToSlash(dir), "/")
	u := url.URL{Scheme: "file", Path: slashed}
	s := &Store{dir: dir, name: u.String(), step: perform, mustExist: mustExist, durable: make(map[string]bool), seen: make(map[string]bool)}
	if _, err := s.openedRoot(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, s.fail("open", "", err)
	}
	return s, nil
}

// openedRoot returns the open directory of the store. Its error is fs.ErrNotExist if the
// directory does not exist yet. Each call of the Store begins with openedRoot, so that it
// does not use a directory that was removed, unmounted or replaced meanwhile.
func (s *Store) openedRoot() (*os.Root, error) {
	now, err := os.Stat(s.dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root != nil && errors.Is(err, fs.ErrNotExist) {
		now, err = os.Stat(s.dir) // another call may have made and opened it since
	}
	switch {
	case s.root != nil && (errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, s.info)):
		return nil, fmt.Errorf("%w: the directory was removed or replaced while it was in use; bring it back, or open the store anew", backend.ErrNoStore)
	case errors.Is(err, fs.ErrNotExist) && s.mustExist:
		return nil, s.missing("does not exist")
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
	if err == nil {
		err = s.checkWritten(root)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	s.root, s.info = root, info
	return root, nil
}

// enter begins a call. Unless enter fails, the call must end with leave.
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

// Close closes the handle. Calls in progress continue, and the last of them removes
// the handle's temporary files.
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

// release frees what the handle holds. It reports no errors: the next handle that
// writes removes what could not be removed here.
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
	root, err := s.openedRoot()
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
	s.recordFound(path.Dir(key))
	return readAt(ctx, f, offset, p)
}

// isObject returns nil if there is an object at key, and fs.ErrNotExist if there is
// none.
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
	root, err := s.openedRoot()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever written
	}
	if err != nil {
		return s.fail("delete", "", err)
	}
	if err := s.settleFound(root); err != nil {
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

// recordFound records that objects were found in a directory.
func (s *Store) recordFound(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[dir] = true
}

// settleFound makes durable the names of objects that this handle has found. A caller
// deletes because of what it has found, for example a manifest that no longer needs
// some segments. But an object of another process can be found before its name is
// durable. If a loss of power then removed that name and kept the deletion, the older
// manifest would need what was deleted. This cannot happen on ext4 and XFS, which
// keep the order of operations, but it can on Btrfs.
func (s *Store) settleFound(root *os.Root) error {
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
			s.recordFound(dir)
		}
		return fmt.Errorf("nothing was deleted, because objects that were found before could not be made durable: %w", err)
	}
	return nil
}

// remove removes one object. It keeps directories and whatever else is not an object.
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
