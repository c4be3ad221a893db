package checkpoint_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// fileNames is small, so that steps affect the same files, and awkward.
var fileNames = rapid.SampledFrom([]string{"a", "b", "a-b", "a.b", "A", "ü", " ", "new\nline", "%41", "\\", "..."})

// An editor changes a directory in every way in which a job might. It works in an
// os.Root, so that no link leads out of the directory.
type editor struct {
	*rapid.T
	root    *os.Root
	special []fs.FileMode // mode bits that "permissions" may also set
}

func newEditor(t *rapid.T, dir string, special ...fs.FileMode) *editor {
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return &editor{t, root, append(special, 0, fs.ModeSticky)}
}

// path generates a path below the directory, which may or may not exist.
func (e *editor) path() string {
	var p string
	for range rapid.IntRange(1, 3).Draw(e.T, "depth") {
		p = path.Join(p, fileNames.Draw(e.T, "name"))
	}
	return p
}

// any chooses a file that exists.
func (e *editor) any(kind fs.FileMode) string {
	var all []string
	_ = fs.WalkDir(e.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type() == kind && p != "." {
			all = append(all, p)
		}
		return err
	})
	if len(all) == 0 {
		e.Skip("there is none")
	}
	return rapid.SampledFrom(all).Draw(e.T, "which")
}

// data generates content, small or at the limit of a chunk.
func (e *editor) data() []byte {
	sizes := []int{0, 1, 7, 300, 300, 300, 15 << 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 130 << 10}
	return bytes.Repeat([]byte{rapid.Byte().Draw(e.T, "byte")}, rapid.SampledFrom(sizes).Draw(e.T, "size"))
}

// change changes an existing file.
func (e *editor) change(do func(*os.File) error) error {
	f, err := e.root.OpenFile(e.any(0), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

func (e *editor) steps() map[string]func(*rapid.T) {
	steps := map[string]func() error{
		"write": func() error { return e.root.WriteFile(e.path(), e.data(), 0o644) },
		"overwrite": func() error {
			return e.change(func(f *os.File) error {
				_, err := f.WriteAt(e.data(), rapid.SampledFrom([]int64{0, 5, 64 << 10}).Draw(e.T, "offset"))
				return err
			})
		},
		"truncate": func() error {
			return e.change(func(f *os.File) error {
				return f.Truncate(rapid.SampledFrom([]int64{0, 1, 64 << 10}).Draw(e.T, "size"))
			})
		},
		"directory": func() error { return e.root.MkdirAll(e.path(), 0o755) },
		"link": func() error {
			targets := []string{"a", "../b", "/nowhere/at/all", "/not/\xffUTF-8", "a/../a", "."}
			return e.root.Symlink(rapid.SampledFrom(targets).Draw(e.T, "target"), e.path())
		},
		"hard link":        func() error { return e.root.Link(e.any(0), e.path()) },
		"rename":           func() error { return e.root.Rename(e.any(0), e.path()) },
		"rename directory": func() error { return e.root.Rename(e.any(fs.ModeDir), e.path()) },
		"delete":           func() error { return e.root.Remove(e.any(0)) },
		"delete link":      func() error { return e.root.Remove(e.any(fs.ModeSymlink)) },
		"delete directory": func() error { return e.root.RemoveAll(e.any(fs.ModeDir)) },
		"permissions": func() error {
			special := rapid.SampledFrom(e.special).Draw(e.T, "special")
			// Readable by its owner, because the test may not run as root.
			return e.root.Chmod(e.any(0), 0o400|special|fs.FileMode(rapid.IntRange(0, 0o777).Draw(e.T, "bits")))
		},
		"permissions of a directory": func() error {
			return e.root.Chmod(e.any(fs.ModeDir), 0o700|fs.FileMode(rapid.IntRange(0, 0o77).Draw(e.T, "bits")))
		},
		"times": func() error {
			kind := rapid.SampledFrom([]fs.FileMode{0, fs.ModeDir}).Draw(e.T, "kind")
			at := time.Unix(rapid.Int64Range(-1<<31, 1<<33).Draw(e.T, "seconds"), rapid.Int64Range(0, 1e9-1).Draw(e.T, "nanos"))
			return e.root.Chtimes(e.any(kind), at, at)
		},
	}
	actions := make(map[string]func(*rapid.T))
	for name, step := range steps {
		actions[name] = func(t *rapid.T) {
			if err := step(); err != nil {
				t.Skip(err) // this step is impossible here: a file below a file, say
			}
		}
	}
	return actions
}

// Whatever happens to a state between two commits, each checkpoint gives back exactly
// the state of its time: as a directory and as a file system.
func TestEveryCheckpointGivesBackItsState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir := tempDir(t)
		task := openTask(t, mem.NewBucket(time.Now), checkpoint.Options{
			Memory: 1 << 20, Retention: checkpoint.Retention{Last: checkpoint.KeepAll},
		})
		o := claim(t, task)
		var states []string
		// Setuid and setgid are restored only together with the owner.
		actions := newEditor(t, dir, fs.ModeSetuid, fs.ModeSetgid).steps()
		actions[""] = func(t *rapid.T) {
			commit(t, o, checkpoint.Snapshot{State: checkpoint.Dir(dir).FileOwners()})
			states = append(states, describe(t, dir))
		}
		t.Repeat(actions)

		list, err := task.List(t.Context())
		if err != nil || len(list) != len(states) {
			t.Fatalf("%d checkpoints, %v; want %d", len(list), err, len(states))
		}
		slices.Reverse(list)
		for i, c := range list {
			fsys, err := c.FS(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := describeFS(t, fsys); got != states[i] {
				t.Fatalf("checkpoint %d as a file system:\n%.2000q\nwant\n%.2000q", c.Seq, got, states[i])
			}
		}
		// A restore syncs a file system, which takes long: one per run.
		i := rapid.IntRange(0, len(list)-1).Draw(t, "restored")
		target := filepath.Join(tempDir(t), "target")
		if err := list[i].Restore(t.Context(), target, checkpoint.RestoreOptions{FileOwners: true}); err != nil {
			t.Fatal(err)
		}
		if got := describe(t, target); got != states[i] {
			t.Fatalf("checkpoint %d restored:\n%.2000q\nwant\n%.2000q", list[i].Seq, got, states[i])
		}
	})
}

func tempDir(t tester) string {
	t.Helper()
	return tempDirIn(t, "")
}

func tempDirIn(t tester, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "holdfast-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A checkpoint as a file system follows links as the operating system does below the
// root of a restored one.
func TestLinksLeadWhereTheOperatingSystemFollowsThem(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	rapid.Check(t, func(t *rapid.T) {
		dir := tempDir(t)
		root, err := os.OpenRoot(dir) // for writing, too: a link may lead anywhere
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		for _, name := range rapid.Permutation([]string{"a", "b", "c", "d", "a/a", "a/b", "b/a", "b/b", "a/a/a"}).Draw(t, "order") {
			// Steps that fail are impossible here, or lead out of the directory.
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				_ = root.MkdirAll(name, 0o755)
			case 1:
				_ = root.WriteFile(name, []byte(name), 0o644)
			default:
				parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "..", ".", ""}), 1, 4).Draw(t, "target")
				_ = root.Symlink(strings.Join(parts, "/"), name) // not cleaned: "a/../b", "a/", even "//a"
			}
		}
		state := stateOf(t, checkpoint.Dir(dir))
		for _, a := range names {
			for _, b := range append(names, "") {
				for _, c := range append(names, "") {
					name := path.Join(a, b, c)
					want, wantErr := root.Stat(name)
					if errors.Is(wantErr, syscall.ELOOP) {
						continue // os.Root follows fewer
					}
					got, gotErr := fs.Stat(state, name)
					if (wantErr == nil) != (gotErr == nil) {
						t.Fatalf("stat %s: %v; the system says %v", name, gotErr, wantErr)
					}
					if wantErr == nil && (got.Mode() != want.Mode() || !want.IsDir() && got.Size() != want.Size()) {
						t.Fatalf("stat %s: %v; the system says %v", name, got, want)
					}
				}
			}
		}
	})
}
