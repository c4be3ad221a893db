package checkpoint_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// makeState fills a directory with one file of each kind.
func makeState(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	big := make([]byte, 300<<10+17)
	for i := range big {
		big[i] = byte(rand.Uint32())
	}
	files := map[string]string{
		"empty": "", "hello": "hello, world\n", "big": string(big),
		"a/b/c": "deep", "a/b-c": "sorts oddly", "a.txt": "x", "ünïcode": "ü",
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	for _, err := range []error{
		os.Chmod(filepath.Join(dir, "hello"), 0o4750),
		os.Chtimes(filepath.Join(dir, "hello"), at, at),
		os.Symlink("hello", filepath.Join(dir, "link")),
		os.Symlink("../nowhere", filepath.Join(dir, "a/dangling")),
		os.MkdirAll(filepath.Join(dir, "void/inner"), 0o700),
		os.Chmod(filepath.Join(dir, "void"), 0o555),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "void"), 0o755) })
	return dir
}

// describe returns a line for each entry of a directory.
func describe(t tester, dir string) string {
	t.Helper()
	return describeFS(t, os.DirFS(dir))
}

func describeFS(t tester, root fs.FS) string {
	t.Helper()
	var b strings.Builder
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		detail := ""
		switch info.Mode().Type() {
		case fs.ModeSymlink:
			detail, err = fs.ReadLink(root, p)
		case 0:
			var data []byte
			data, err = fs.ReadFile(root, p)
			detail = info.ModTime().UTC().String() + " " + string(data)
		case fs.ModeDir:
			detail = info.ModTime().UTC().String()
		}
		b.WriteString(p + " " + info.Mode().String() + " " + detail + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestRestoreGivesBackTheTree(t *testing.T) {
	for _, memory := range []int64{1 << 20, 256 << 20} {
		task := openTask(t, mem.NewBucket(time.Now), checkpoint.Options{Memory: memory})
		state := makeState(t)
		c := commit(t, claim(t, task), checkpoint.Snapshot{State: checkpoint.Dir(state)})
		if c.Files != 7 {
			t.Errorf("Files = %d, want 7", c.Files)
		}
		target := filepath.Join(t.TempDir(), "new", "state")
		if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(filepath.Join(target, "void"), 0o755) })
		if got, want := describe(t, target), describe(t, state); got != want {
			t.Errorf("restored tree differs:\n%.2000q\nwant\n%.2000q", got, want)
		}
		left, _ := os.ReadDir(filepath.Dir(target))
		if len(left) != 1 {
			t.Errorf("beside the target: %v", left)
		}
	}
}

func TestRestoreRefusesATargetThatIsNotEmpty(t *testing.T) {
	task := newTask(t)
	c := commit(t, claim(t, task), checkpoint.Snapshot{State: checkpoint.Stream("f", strings.NewReader("new"))})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "old"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := c.Restore(t.Context(), dir, checkpoint.RestoreOptions{})
	if !errors.Is(err, checkpoint.ErrNotEmpty) {
		t.Fatalf("err = %v, want ErrNotEmpty", err)
	}
	if err := c.Restore(t.Context(), dir, checkpoint.RestoreOptions{Replace: true}); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 || entries[0].Name() != "f" {
		t.Errorf("after Replace: %v", entries)
	}
}

func TestStateFS(t *testing.T) {
	task := newTask(t)
	state := makeState(t)
	if err := os.Remove(filepath.Join(state, "a/dangling")); err != nil { // TestFS opens everything
		t.Fatal(err)
	}
	for name, source := range map[string]checkpoint.Source{
		"a directory": checkpoint.Dir(state),
		"small, inline": checkpoint.FS(fstest.MapFS{
			"x/y": {Data: []byte("why"), Mode: 0o600}, "z": {Data: []byte("zed")},
		}),
	} {
		t.Run(name, func(t *testing.T) {
			c := commit(t, claim(t, task), checkpoint.Snapshot{State: source})
			fsys, err := c.FS(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			err = fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					want = append(want, p)
				}
				return err
			})
			if err != nil || len(want) < 2 {
				t.Fatalf("only %v, %v", want, err)
			}
			if err := fstest.TestFS(fsys, want...); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStateFSReadsRanges(t *testing.T) {
	task := newTask(t)
	data := make([]byte, 2<<20+100)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	c := commit(t, claim(t, task), checkpoint.Snapshot{State: checkpoint.Stream("dir/s", bytes.NewReader(data))})
	fsys, err := c.FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Open("dir/s")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, r := range [][2]int{{0, 1}, {0, len(data)}, {1<<20 - 1, 2}, {1 << 20, 1}, {len(data) - 5, 5}, {77, 1 << 20}} {
		got := make([]byte, r[1])
		if _, err := f.(io.ReaderAt).ReadAt(got, int64(r[0])); err != nil {
			t.Errorf("ReadAt(%d bytes, %d): %v", r[1], r[0], err)
		}
		if !bytes.Equal(got, data[r[0]:r[0]+r[1]]) {
			t.Errorf("ReadAt(%d bytes, %d): wrong bytes", r[1], r[0])
		}
	}
}
