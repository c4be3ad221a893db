package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
)

// A store that must exist does not open as a new one, where a volume is not mounted.
func TestMustExist(t *testing.T) {
	for name, c := range map[string]struct {
		make func(dir string) error
		says string // or "" if the store opens
	}{
		"no directory":       {func(string) error { return nil }, "does not exist"},
		"an empty directory": {func(dir string) error { return os.Mkdir(dir, 0o777) }, "nothing was ever written to it"},
		"foreign files":      {func(dir string) error { return os.MkdirAll(filepath.Join(dir, "lost+found"), 0o777) }, "nothing was ever written to it"},
		"a store": {func(dir string) error {
			s, err := New(dir)
			if err == nil {
				_, err = s.Put(t.Context(), "a/b", nil)
			}
			return errors.Join(err, s.Close())
		}, ""},
		"a store whose objects were deleted": {func(dir string) error {
			s, err := New(dir)
			if err == nil {
				_, err = s.Put(t.Context(), "a/b", nil)
			}
			return errors.Join(err, s.Delete(t.Context(), "a/b"), s.Close())
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			s, err := backend.Open(t.Context(), "file://"+dir+"?must_exist=true")
			if c.says != "" {
				if !errors.Is(err, backend.ErrNoStore) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "not mounted") {
					t.Errorf("err = %v", err)
				}
				if _, err := os.Lstat(filepath.Join(dir, tempDir)); err == nil {
					t.Error("the attempt has made a store")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			for _, url := range []string{"?must_exist=false", ""} {
				s, err := backend.Open(t.Context(), "file://"+filepath.Join(t.TempDir(), "new")+url)
				if err != nil {
					t.Fatal(err)
				}
				_ = s.Close()
			}
		})
	}
}

// The volume is unmounted while a handle is open that has not yet been used.
func TestMustExistAtEachCall(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, err := New(dir)
	if err == nil {
		_, err = s.Put(t.Context(), "a/b", nil)
	}
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	opened, err := backend.Open(t.Context(), "file://"+dir+"?must_exist=true")
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if err := errors.Join(os.Rename(dir, dir+".away"), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := opened.Create(t.Context(), "a/c", nil); !errors.Is(err, backend.ErrNoStore) {
		t.Errorf("err = %v", err)
	}
}
