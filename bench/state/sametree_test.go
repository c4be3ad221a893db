package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSameTree(t *testing.T) {
	long := strings.Repeat("x", 3<<20) // longer than what is compared at a time
	want := map[string]string{"a": "one", "dir/b": "", "dir/c": long}
	for _, c := range []struct {
		name    string
		changed map[string]string // "-" for a file that is not there
		differ  string            // the file that the error names; "" for none
	}{
		{"the same", nil, ""},
		{"a file is missing", map[string]string{"a": "-"}, "a is missing"},
		{"an empty file is missing", map[string]string{"dir/b": "-"}, "b is missing"},
		{"a file too many", map[string]string{"dir/d": ""}, "d should not be there"},
		{"other bytes", map[string]string{"a": "two"}, "a has other bytes"},
		{"other bytes at the end", map[string]string{"dir/c": long[1:] + "y"}, "c has other bytes"},
		{"other bytes at a boundary", map[string]string{"dir/c": long[:1<<20] + "y" + long[1<<20+1:]}, "c has other bytes"},
		{"too short", map[string]string{"dir/c": long[1:]}, "instead of"},
		{"too long", map[string]string{"a": "one "}, "instead of"},
		{"empty instead of something", map[string]string{"a": ""}, "instead of"},
		{"something instead of empty", map[string]string{"dir/b": "x"}, "instead of"},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := t.TempDir(), t.TempDir()
			writeTree(t, first, want)
			writeTree(t, second, want)
			writeTree(t, second, c.changed)
			err := sameTree(first, second)
			switch {
			case c.differ == "" && err != nil:
				t.Error(err)
			case c.differ != "" && (!errors.Is(err, errDiffer) || !strings.Contains(err.Error(), c.differ)):
				t.Errorf("got %v, want that %s", err, c.differ)
			}
		})
	}
	t.Run("a link instead of a file", func(t *testing.T) {
		first, second := t.TempDir(), t.TempDir()
		writeTree(t, first, want)
		writeTree(t, second, want)
		if err := os.Remove(filepath.Join(second, "a")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(first, "a"), filepath.Join(second, "a")); err != nil {
			t.Skip("no links here: ", err)
		}
		if err := sameTree(first, second); !errors.Is(err, errDiffer) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no tree", func(t *testing.T) {
		if err := sameTree(t.TempDir(), filepath.Join(t.TempDir(), "gone")); err == nil || errors.Is(err, errDiffer) {
			t.Errorf("got %v", err)
		}
	})
}

func writeTree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if data == "-" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
