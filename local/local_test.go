package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/backend"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		runRole(role)
		return
	}
	goleak.VerifyTestMain(m)
}

// openStore opens a store, and closes it at the end of the test.
func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustClose(t, s) })
	return s
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

func mustCreate(t testing.TB, s *Store, key, data string) backend.Object {
	t.Helper()
	o, err := s.Create(t.Context(), key, []byte(data))
	if err != nil {
		t.Fatalf("Create(%s) = %v", key, err)
	}
	return o
}

// content returns a complete object, read through the store.
func content(t testing.TB, s *Store, key string) string {
	t.Helper()
	p := make([]byte, 1<<22)
	n, err := s.Get(t.Context(), key, 0, p)
	if err != nil {
		t.Fatalf("Get(%s) = %v", key, err)
	}
	return string(p[:n])
}

func list(t testing.TB, s *Store, prefix, after string) []string {
	t.Helper()
	var keys []string
	for o, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("List(%q, %q) = %v", prefix, after, err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

// temporary returns the names in the store's temporary directory, except locks.
func temporary(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, tempDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func wantKind(t testing.TB, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s = %v, want %v", what, err, kind)
	}
	if e := new(backend.Error); err != nil && !errors.As(err, &e) {
		t.Errorf("%s = %v, not a backend.Error", what, err)
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: an error of more than one line: %v", what, err)
	}
}

// verbs calls every method that takes a key, and returns the errors.
func verbs(s *Store, key string) map[string]error {
	ctx := context.Background()
	errs := make(map[string]error)
	_, errs["create"] = s.Create(ctx, key, nil)
	_, errs["put"] = s.Put(ctx, key, nil)
	_, errs["get"] = s.Get(ctx, key, 0, make([]byte, 1))
	errs["list"] = nil
	for _, err := range s.List(ctx, key, "") {
		errs["list"] = err
	}
	errs["delete"] = s.Delete(ctx, key)
	return errs
}

func wantAll(t testing.TB, errs map[string]error, kind error) {
	t.Helper()
	for _, verb := range slices.Sorted(maps.Keys(errs)) {
		wantKind(t, verb, errs[verb], kind)
	}
}

func TestOpenURL(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	dangling := filepath.Join(dir, "dangling")
	err := errors.Join(os.WriteFile(file, nil, 0o666), os.Symlink(dir+"/nowhere", dangling))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		url  string
		kind error  // nil: it can be opened
		says string // a part of the error's text
	}{
		"directory":         {url: "file://" + dir},
		"localhost":         {url: "file://localhost" + dir},
		"one slash":         {url: "file:" + dir},
		"not there yet":     {url: "file://" + dir + "/a/b"},
		"trailing slash":    {url: "file://" + dir + "/"},
		"escapes":           {url: "file://" + dir + "/a%20b%3F"},
		"dots":              {url: "file://" + dir + "/x/.."},
		"relative":          {"file://var/lib/orders", backend.ErrInvalid, "write file:///var/lib/orders, or file://$PWD/var/lib/orders if it is in the working directory"},
		"relative, no //":   {"file:var/lib", backend.ErrInvalid, "write file:///var/lib, or file://$PWD/var/lib if"},
		"relative, a name":  {"file://orders", backend.ErrInvalid, "write file:///orders, or file://$PWD/orders if"},
		"relative by .":     {"file://./orders", backend.ErrInvalid, `store URL "file://./orders" has no absolute path; write file://$PWD/orders`},
		"relative by ..":    {"file:../orders", backend.ErrInvalid, "write file://$PWD/../orders"},
		"home":              {"file://~/orders", backend.ErrInvalid, "write file://$HOME/orders"},
		"host":              {"file://host/dir", backend.ErrInvalid, "write file:///host/dir"},
		"no path":           {"file://", backend.ErrInvalid, "names no directory; write file:///path"},
		"root":              {"file:///", backend.ErrInvalid, "names no directory"},
		"root by dots":      {"file:///a/../..", backend.ErrInvalid, "names no directory"},
		"parameter":         {"file://" + dir + "?sync=no", backend.ErrInvalid, `unknown parameter "sync"; file:// takes must_exist`},
		"zero byte":         {"file:///a%00b", backend.ErrInvalid, `"/a\x00b"`},
		"a file":            {"file://" + file, backend.ErrNoStore, "not a directory"},
		"below a file":      {"file://" + file + "/dir", backend.ErrNoStore, "not a directory"},
		"dangling link":     {"file://" + dangling, backend.ErrNoStore, dangling + " leads nowhere"},
		"below a dangling":  {"file://" + dangling + "/a/b", backend.ErrNoStore, dangling + " leads nowhere"},
		"name of 300 bytes": {"file://" + dir + "/" + strings.Repeat("x", 300), backend.ErrUnsupported, "shorter names"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := backend.Open(t.Context(), c.url)
			if c.kind == nil {
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, c.kind) || !strings.Contains(fmt.Sprint(err), c.says) || strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("got  %v\nwant %v that says %q in one line", err, c.kind, c.says)
			}
		})
	}
	if exists(filepath.Join(dir, "a")) {
		t.Error("opening made a directory")
	}
}

func TestOpenRefusesNoPath(t *testing.T) {
	if _, err := New(""); !errors.Is(err, backend.ErrInvalid) {
		t.Errorf("Open(\"\") = %v, want ErrInvalid", err)
	}
}

// A directory that does not exist yet lists as empty. Reading does not make it; the
// first write makes it, for all handles.
func TestDirectoryNotThereYet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := openStore(t, dir)
	if keys := list(t, s, "", ""); keys != nil {
		t.Errorf("List = %q, want none", keys)
	}
	_, err := s.Get(t.Context(), "k", 0, make([]byte, 1))
	wantKind(t, "Get", err, backend.ErrNotExist)
	wantKind(t, "Delete", s.Delete(t.Context(), "k"), nil)
	if exists(filepath.Dir(dir)) {
		t.Fatal("reading made the directory")
	}
	mustCreate(t, openStore(t, dir), "k", "data")
	if got := content(t, s, "k"); got != "data" {
		t.Errorf("Get through the handle that had found no directory = %q", got)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode of the directory that was made: %v, %v; want private", info.Mode(), err)
	}
}

func TestDirectoryDisappears(t *testing.T) {
	for name, lose := range map[string]func(dir string) error{
		"removed": os.RemoveAll,
		"moved":   func(dir string) error { return os.Rename(dir, dir+".old") },
		"replaced": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o777))
		},
		"replaced by a file": func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o666))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			s := openStore(t, dir)
			mustCreate(t, s, "a/k", "data")
			if err := lose(dir); err != nil {
				t.Fatal(err)
			}
			wantAll(t, verbs(s, "a/k"), backend.ErrNoStore)
			if exists(filepath.Join(dir, "a")) {
				t.Error("something was written to the new directory")
			}
		})
	}
}

// Directories that someone removes by hand are made again, at the latest by the
// second attempt.
func TestSubdirectoriesDisappear(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	mustCreate(t, s, "a/b/k", "data")
	for _, gone := range []string{"a", "a/b", tempDir} {
		if err := os.RemoveAll(filepath.Join(dir, gone)); err != nil {
			t.Fatal(err)
		}
		key := "a/b/" + strings.ReplaceAll(gone[1:], "/", "-") + "x"
		_, err := s.Create(t.Context(), key, []byte(key))
		if err != nil {
			if !backend.Retryable(err) {
				t.Errorf("without %s: Create = %v, want a retryable error", gone, err)
			}
			mustCreate(t, s, key, key)
		}
		if got := content(t, s, key); got != key {
			t.Errorf("without %s: Get = %q", gone, got)
		}
	}
	// The same between the first step of a write and its last.
	for i, gone := range []string{"a", tempDir} {
		key := fmt.Sprintf("a/b/late%d", i)
		s.step = func(op, name string, do func() error) error {
			if op == "link" {
				return errors.Join(os.RemoveAll(filepath.Join(dir, gone)), do())
			}
			return do()
		}
		_, err := s.Create(t.Context(), key, nil)
		if err == nil || !backend.Retryable(err) {
			t.Errorf("%s removed before the link: Create = %v, want a retryable error", gone, err)
		}
		s.step = perform
		mustCreate(t, s, key, "data")
	}
}

func TestGet(t *testing.T) {
	s := openStore(t, t.TempDir())
	mustCreate(t, s, "empty", "")
	mustCreate(t, s, "k", "0123456789")
	for name, c := range map[string]struct {
		key    string
		offset int64
		length int
		want   string
		kind   error
	}{
		"whole":              {"k", 0, 10, "0123456789", nil},
		"middle":             {"k", 3, 4, "3456", nil},
		"beyond the end":     {"k", 8, 100, "89", nil},
		"last byte":          {"k", 9, 1, "9", nil},
		"at the end":         {"k", 10, 1, "", backend.ErrRange},
		"after the end":      {"k", 11, 1, "", backend.ErrRange},
		"negative":           {"k", -1, 1, "", backend.ErrRange},
		"nothing":            {"k", 0, 0, "", backend.ErrRange},
		"empty":              {"empty", 0, 1, "", nil},
		"empty, at 1":        {"empty", 1, 1, "", backend.ErrRange},
		"empty, nothing":     {"empty", 0, 0, "", backend.ErrRange},
		"absent":             {"x", 0, 1, "", backend.ErrNotExist},
		"absent directory":   {"x/y/z", 0, 1, "", backend.ErrNotExist},
		"below an object":    {"k/x", 0, 1, "", backend.ErrNotExist},
		"not a key":          {"../k", 0, 1, "", backend.ErrInvalid},
		"a temporary's name": {tempDir + "/x", 0, 1, "", backend.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			p := make([]byte, c.length)
			n, err := s.Get(t.Context(), c.key, c.offset, p)
			wantKind(t, "Get", err, c.kind)
			if err == nil && string(p[:n]) != c.want {
				t.Errorf("Get = %q, want %q", p[:n], c.want)
			}
		})
	}
}

func TestGetManyPieces(t *testing.T) {
	s := openStore(t, t.TempDir())
	data := bytes.Repeat([]byte("0123456789abcdef-"), 3*piece/17)
	if _, err := s.Put(t.Context(), "k", data); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, len(data)+5)
	n, err := s.Get(t.Context(), "k", 7, p)
	if err != nil || !bytes.Equal(p[:n], data[7:]) {
		t.Errorf("Get = %d bytes, %v; want the %d after the seventh", n, err, len(data)-7)
	}
}

func TestDelete(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	for _, key := range []string{"a/1", "a/2", "b"} {
		mustCreate(t, s, key, key)
	}
	if err := s.Delete(t.Context(), "a/1", "a/0", "x/y", "b/below", "a/2"); err != nil {
		t.Errorf("Delete, some missing = %v", err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Errorf("Delete of a directory = %v", err)
	}
	if !exists(filepath.Join(dir, "a")) {
		t.Error("Delete removed a directory that another process may be about to use")
	}
	if keys := list(t, s, "", ""); !slices.Equal(keys, []string{"b"}) {
		t.Errorf("List = %q, want b", keys)
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Errorf("Delete of nothing = %v", err)
	}
	wantKind(t, "Delete with a bad key", s.Delete(t.Context(), "b", "../x"), backend.ErrInvalid)
	if !exists(filepath.Join(dir, "b")) {
		t.Error("Delete with a bad key removed another one")
	}
}

func TestClose(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	mustCreate(t, s, "k", "data")
	mustCreate(t, s, "l", "data")
	for o, err := range s.List(t.Context(), "", "") {
		if o.Key == "k" {
			mustClose(t, s)
		} else {
			wantKind(t, "List after Close in the midst of it", err, backend.ErrClosed)
		}
	}
	mustClose(t, s) // a second time
	wantAll(t, verbs(s, "k"), backend.ErrClosed)
	left, err := os.ReadDir(filepath.Join(dir, tempDir))
	if err != nil || len(left) != 0 {
		t.Errorf("after Close: %v, %v in the temporary directory", left, err)
	}
}

// A call that is in progress when the handle is closed continues. When it ends, the
// handle's files are removed.
func TestCloseDuringCreate(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	s.step = func(op, _ string, do func() error) error {
		if op == "link" {
			mustClose(t, s)
			mustCreate(t, openStore(t, dir), "other", "") // sweeps
		}
		return do()
	}
	if _, err := s.Create(t.Context(), "k", []byte("data")); err != nil {
		t.Errorf("Create = %v", err)
	}
	if left := temporary(t, dir); left != nil {
		t.Errorf("left: %q", left)
	}
	if locks := locks(t, dir); locks != 1 {
		t.Errorf("%d locks left, want the other handle's alone", locks)
	}
}

func locks(t testing.TB, dir string) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, tempDir, "*.lock"))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestContextHasEnded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openStore(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Create(ctx, "k", nil)
	wantKind(t, "Create", err, context.Canceled)
	_, err = s.Put(ctx, "k", nil)
	wantKind(t, "Put", err, context.Canceled)
	_, err = s.Get(ctx, "k", 0, make([]byte, 1))
	wantKind(t, "Get", err, context.Canceled)
	wantKind(t, "Delete", s.Delete(ctx, "k"), context.Canceled)
	for _, err := range s.List(ctx, "", "") {
		wantKind(t, "List", err, context.Canceled)
	}
	if exists(dir) {
		t.Error("something was done")
	}
}
