package checkpoint_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

func joined(dir, stream string) checkpoint.Source {
	return checkpoint.Join(map[string]checkpoint.Source{
		"counts":  checkpoint.Dir(dir).Immutable("*.sst"),
		"backup":  checkpoint.Stream("deep/all.dump", strings.NewReader(stream)),
		"journal": checkpoint.FS(fstest.MapFS{"log": {Data: []byte("journal"), Mode: 0o600}}),
	})
}

// Several states are saved as one, each in its own directory, and restored together
// or separately.
func TestJoin(t *testing.T) {
	task := newTask(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "sub", "a"), "first")
	writeFile(t, filepath.Join(dir, "1.sst"), strings.Repeat("table", 10_000))
	for n, stream := range []string{strings.Repeat("s", 300_000), strings.Repeat("s", 300_000) + "more"} {
		writeFile(t, filepath.Join(dir, "sub", "a"), fmt.Sprint("state ", n))
		c, err := task.Save(t.Context(), checkpoint.Snapshot{State: joined(dir, stream)}, checkpoint.SaveOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if c.Files != 4 {
			t.Errorf("%d files, want 4", c.Files)
		}
		all := filepath.Join(t.TempDir(), "all")
		if err := c.Restore(t.Context(), all, checkpoint.RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{
			"counts/sub/a": fmt.Sprint("state ", n), "counts/1.sst": strings.Repeat("table", 10_000),
			"backup/deep/all.dump": stream, "journal/log": "journal",
		} {
			wantText(t, filepath.Join(all, path), want)
		}
		part := filepath.Join(t.TempDir(), "part")
		if err := c.Restore(t.Context(), part, checkpoint.RestoreOptions{Sub: "counts"}); err != nil {
			t.Fatal(err)
		}
		wantText(t, filepath.Join(part, "sub", "a"), fmt.Sprint("state ", n))
		if names, err := os.ReadDir(part); err != nil || len(names) != 2 {
			t.Errorf("%v, %v; want two names", names, err)
		}
		if err := c.Restore(t.Context(), part, checkpoint.RestoreOptions{Sub: "backup/deep", Replace: true}); err != nil {
			t.Fatal(err)
		}
		wantText(t, filepath.Join(part, "all.dump"), stream)
	}
}

func TestSubThatDoesNotExist(t *testing.T) {
	task := newTask(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a"), "a")
	c, err := task.Save(t.Context(), checkpoint.Snapshot{State: checkpoint.Dir(dir)}, checkpoint.SaveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for sub, want := range map[string]error{"b": fs.ErrNotExist, "a": fs.ErrNotExist, "../b": backend.ErrInvalid, "/": backend.ErrInvalid} {
		target := filepath.Join(t.TempDir(), "target")
		if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{Sub: sub}); !errors.Is(err, want) {
			t.Errorf("sub %q: %v, want %v", sub, err, want)
		}
		if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("sub %q: the target was made", sub)
		}
	}
}

func TestJoinsThatAreRefused(t *testing.T) {
	task := newTask(t)
	for name, parts := range map[string]map[string]checkpoint.Source{
		"two elements":      {"a/b": checkpoint.Dir(t.TempDir())},
		"no name":           {"": checkpoint.Dir(t.TempDir())},
		"the root":          {".": checkpoint.Dir(t.TempDir())},
		"nothing in a part": {"a": {}},
		"a stream's name":   {"a": checkpoint.Stream("/x", strings.NewReader("x"))},
		"a pattern":         {"a": checkpoint.Dir(t.TempDir()).Immutable("[")},
	} {
		_, err := task.Save(t.Context(), checkpoint.Snapshot{State: checkpoint.Join(parts)}, checkpoint.SaveOptions{})
		if !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// An error names the file in its source, and not its path in the checkpoint.
func TestErrorInAPartNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(strings.Repeat("x", 100), filepath.Join(dir, "link")); err != nil {
		t.Skip(err)
	}
	missing := filepath.Join(dir, "gone")
	_, err := newTask(t).Save(t.Context(), checkpoint.Snapshot{State: checkpoint.Join(map[string]checkpoint.Source{
		"a": checkpoint.Dir(dir), "b": checkpoint.Dir(missing),
	})}, checkpoint.SaveOptions{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("%v does not name %s", err, missing)
	}
}

// If the stream of a part fails, the save fails, and every stream is closed.
func TestStreamOfAPartFails(t *testing.T) {
	pr, pw := io.Pipe()
	last, lastWriter := io.Pipe()
	broken := errors.New("broken")
	_, err := newTask(t).Save(t.Context(), checkpoint.Snapshot{State: checkpoint.Join(map[string]checkpoint.Source{
		"a": checkpoint.Stream("x", io.MultiReader(strings.NewReader("x"), errReader{broken})),
		"b": checkpoint.Stream("y", pr),
		"c": checkpoint.Stream("z", last),
	})}, checkpoint.SaveOptions{})
	if !errors.Is(err, broken) {
		t.Errorf("%v, want it to be broken", err)
	}
	for _, w := range []*io.PipeWriter{pw, lastWriter} {
		if _, err := w.Write([]byte("y")); !errors.Is(err, broken) {
			t.Errorf("the writer of another part is told %v", err)
		}
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func wantText(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s: %.60q, %v; want %.60q", path, got, err, want)
	}
}
