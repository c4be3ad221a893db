//go:build unix

package local

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// If permissions forbid reading, the error is ErrPermission: the object or store
// never looks absent or empty.
func TestAccessDenied(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	place(t, dir, "secret/k", "a/b/k", "closed", "z/k")
	chmod := func(name string, mode os.FileMode) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(name, 0o777) })
	}

	chmod("", 0)
	asNobody(t, func() {
		_, err := New(dir)
		wantKind(t, "Open of an unreadable directory", err, backend.ErrPermission)
		_, err = New(filepath.Join(dir, "sub"))
		wantKind(t, "Open below an unreadable directory", err, backend.ErrPermission)
	})

	chmod("", 0o755)
	s := openStore(t, dir)
	chmod("secret", 0)
	chmod("closed", 0)
	chmod("a/b", 0o555)
	asNobody(t, func() {
		wantAll(t, verbs(s, "secret/k"), backend.ErrPermission)
		for _, err := range s.List(t.Context(), "secret/", "") {
			wantKind(t, "List below an unreadable directory", err, backend.ErrPermission)
		}
		_, err := s.Get(t.Context(), "closed", 0, make([]byte, 1))
		wantKind(t, "Get of an unreadable file", err, backend.ErrPermission)
		_, err = s.Create(t.Context(), "a/b/new", nil)
		wantKind(t, "Create in a directory that may only be read", err, backend.ErrPermission)
		wantKind(t, "Delete in a directory that may only be read", s.Delete(t.Context(), "a/b/k"), backend.ErrPermission)
	})
	if exists(filepath.Join(dir, "a/b/new")) || !exists(filepath.Join(dir, "a/b/k")) {
		t.Error("a call that was denied had an effect")
	}

	// A directory that can be written to, but not opened for fsync, is refused before
	// a file is made.
	chmod("", 0o777)
	chmod("z", 0o333)
	asNobody(t, func() {
		s := openStore(t, dir)
		defer s.Close()
		_, err := s.Create(t.Context(), "z/new", nil)
		wantKind(t, "Create in a directory that cannot be made durable", err, backend.ErrPermission)
	})
	if exists(filepath.Join(dir, "z/new")) || temporary(t, dir) != nil {
		t.Error("a Create that was denied had an effect")
	}
}

// A listing does not read directories that can contain no wanted key; these here
// cannot be read.
func TestListPrunes(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	place(t, dir, "a/k", "m/closed/k", "m/k", "m/z/k", "z/k")
	for _, closed := range []string{"a", "m/closed", "z"} {
		name := filepath.Join(dir, closed)
		if err := os.Chmod(name, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(name, 0o777) })
	}
	s := openStore(t, dir)
	asNobody(t, func() {
		for _, c := range []struct{ prefix, after string }{
			{"m/k", ""}, {"m/z", ""}, {"m/", "m/d"}, {"m/z/", "b"}, {"m/", "m/closed0"},
		} {
			list(t, s, c.prefix, c.after) // fails the test on an error
		}
		for o, err := range s.List(t.Context(), "", "m/j") {
			if err != nil || o.Key != "m/k" {
				t.Fatalf("List = %v, %v", o, err)
			}
			break
		}
		var last error
		for _, last = range s.List(t.Context(), "", "") {
		}
		wantKind(t, "List of all", last, backend.ErrPermission)
	})
}

// A named pipe is not an object, and Get does not wait for a writer.
func TestPipeAtTheKey(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "k"), 0o666); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir)
	_, err := s.Get(t.Context(), "k", 0, make([]byte, 1))
	wantKind(t, "Get", err, backend.ErrNotExist)
	_, err = s.Create(t.Context(), "k", nil)
	wantKind(t, "Create", err, backend.ErrInvalid)
	if keys := list(t, s, "", ""); keys != nil {
		t.Errorf("List = %q", keys)
	}
}

func TestTimeIsTheMachinesClock(t *testing.T) {
	before := time.Now()
	o := mustCreate(t, openStore(t, t.TempDir()), "k", "")
	if d := o.ModTime.Sub(before); d < -time.Second || d > time.Minute {
		t.Errorf("time is %v after the call began", d)
	}
}

// A directory that cannot be read hides its own keys, and says so; the keys behind it can be
// listed.
func TestListPastAnUnreadableDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	place(t, dir, "a/k", "b/c/k", "b/d/k", "e/k")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir)
	for mode, hidden := range map[os.FileMode]string{0: "b/c/", 0o444: "b/c/"} { // not entered; entered, and no file seen
		name := filepath.Join(dir, "b/c")
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(name, 0o777) })
		asNobody(t, func() {
			var got []string
			for after, more := "", true; more; {
				more = false
				for o, err := range s.List(t.Context(), "", after) {
					is := (*backend.HiddenError)(nil)
					if errors.As(err, &is) && errors.Is(err, backend.ErrPermission) && is.Prefix == hidden {
						after, more = "b/c0", true
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, o.Key)
				}
			}
			if want := []string{"a/k", "b/d/k", "e/k"}; !slices.Equal(got, want) {
				t.Errorf("mode %v: listed %q, want %q", mode, got, want)
			}
			for _, err := range s.List(t.Context(), "b/c/", "") {
				if wantKind(t, "List below it", err, backend.ErrPermission); errors.As(err, new(*backend.HiddenError)) {
					t.Errorf("all that was asked for is hidden, and this is the error: %v", err)
				}
			}
		})
	}
}
