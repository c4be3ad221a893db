package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ runner.Engine = (*Engine)(nil)

// A world is a directory, and an engine that cuts it.
type world struct {
	t         *testing.T
	dir, cuts string
	e         *Engine
}

func newWorld(t *testing.T, opts Options) *world {
	t.Helper()
	root := t.TempDir()
	w := &world{t: t, dir: filepath.Join(root, "state"), cuts: filepath.Join(root, "cuts")}
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	e, err := Open(w.dir, w.cuts, opts)
	if err != nil {
		t.Fatal(err)
	}
	w.e = e
	return w
}

func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		w.t.Fatal(err)
	}
}

// age makes files old enough for their times to be relied on.
func (w *world) age() { time.Sleep(150 * time.Millisecond) }

// cut takes a cut, and gives it back.
func (w *world) cut() {
	w.t.Helper()
	if err := w.tryCut(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryCut() error {
	_, remove, err := w.e.Cut(w.t.Context())
	if err != nil {
		return err
	}
	return remove()
}

// tree describes all that is in a directory.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		what := ""
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what = string(data)
		case info.Mode().Type() == fs.ModeSymlink:
			what, _ = os.Readlink(path)
		}
		when := info.ModTime().UnixNano()
		if info.Mode().Type() == fs.ModeSymlink {
			when = 0
		}
		list = append(list, fmt.Sprintf("%s %v %d %q", rel, info.Mode(), when, what))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func (w *world) wantCopy() {
	w.t.Helper()
	got, want := tree(w.t, w.e.copy.to), tree(w.t, w.dir)
	if !slices.Equal(got, want) {
		w.t.Errorf("the copy is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestCutIsTheDirectory changes a directory in each way, and cuts it after each.
func TestCutIsTheDirectory(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions and links of Windows are others")
	}
	for _, still := range []func(context.Context, func(context.Context) error) error{
		nil, func(ctx context.Context, copy func(context.Context) error) error { return copy(ctx) },
	} {
		w := newWorld(t, Options{Still: still})
		at := func(name string) string { return filepath.Join(w.dir, name) }
		for _, step := range []struct {
			name string
			do   func() error
		}{
			{"nothing", func() error { return nil }},
			{"files", func() error { w.write("a", "1"); w.write("d/b", "2"); w.write("d/e/c", ""); return nil }},
			{"written in place, of the same size and time", func() error {
				info, err := os.Stat(at("a"))
				if err != nil {
					return err
				}
				w.write("a", "9")
				return os.Chtimes(at("a"), info.ModTime(), info.ModTime())
			}},
			{"longer", func() error { w.write("a", "1 and more"); return nil }},
			{"mode", func() error { return os.Chmod(at("a"), 0o640) }},
			{"a link", func() error { return os.Symlink("a", at("l")) }},
			{"another link", func() error { return errors.Join(os.Remove(at("l")), os.Symlink("d/b", at("l"))) }},
			{"a link becomes a file", func() error { _ = os.Remove(at("l")); w.write("l", "3"); return nil }},
			{"a file becomes a directory", func() error { _ = os.Remove(at("l")); w.write("l/x/y", "4"); return nil }},
			{"a directory becomes a file", func() error { _ = os.RemoveAll(at("l")); w.write("l", "5"); return nil }},
			{"renamed", func() error { return os.Rename(at("d"), at("f")) }},
			{"a directory that nobody may write to", func() error { return os.Chmod(at("f"), 0o500) }},
			{"and what is in it changes", func() error {
				_ = os.Chmod(at("f"), 0o700)
				w.write("f/b", "6")
				return os.Chmod(at("f"), 0o500)
			}},
			{"removed", func() error { _ = os.Chmod(at("f"), 0o700); return os.RemoveAll(at("f")) }},
			{"time", func() error { return os.Chtimes(at("a"), time.Unix(1, 0), time.Unix(1, 5)) }},
			{"another directory in its place", func() error {
				_ = os.RemoveAll(w.dir)
				w.write("a", "7")
				return nil
			}},
		} {
			if err := step.do(); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			w.cut()
			w.wantCopy()
			w.age()
			w.cut() // nothing has changed
			w.wantCopy()
			if t.Failed() {
				t.Fatalf("after: %s", step.name)
			}
		}
	}
}

// inode tells whether a file of the copy is still the same one.
func (w *world) info(name string) fs.FileInfo {
	w.t.Helper()
	info, err := os.Stat(w.e.copy.path(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

// TestWhatIsUnchangedIsNotCopied, where the file system makes that known.
func TestWhatIsUnchangedIsNotCopied(t *testing.T) {
	w := newWorld(t, Options{})
	w.write("a", "1")
	w.write("b", "1")
	w.age()
	w.cut()
	if w.e.copy.have["a"].changed.IsZero() {
		t.Skip("this file system's times tell nothing: every file is copied")
	}
	a, b := w.info("a"), w.info("b")
	w.write("b", "2")
	w.cut()
	if !os.SameFile(a, w.info("a")) || os.SameFile(b, w.info("b")) {
		t.Error("the unchanged file was copied, or the other one was not")
	}
	w.wantCopy()
}

// TestFreshFilesAreNotTrusted: a file that changed just before it was copied may be written
// to again without another time.
func TestFreshFilesAreNotTrusted(t *testing.T) {
	w := newWorld(t, Options{})
	w.write("a", "1")
	w.cut()
	if !w.e.copy.have["a"].changed.IsZero() {
		t.Error("its times are relied on")
	}
}

func TestExclude(t *testing.T) {
	w := newWorld(t, Options{Exclude: []string{"*.tmp", "cache"}})
	w.write("a", "1")
	w.write("a.tmp", "1")
	w.write("d/cache/x", "1")
	w.write("d/x.tmp/y", "1")
	w.cut()
	var names []string
	for _, line := range tree(t, w.e.copy.to) {
		names = append(names, strings.Fields(line)[0])
	}
	if want := []string{".", "a", "d"}; !slices.Equal(names, want) {
		t.Errorf("the copy has %q; want %q", names, want)
	}
}

// TestImmutable: such files are linked, others never.
func TestImmutable(t *testing.T) {
	w := newWorld(t, Options{Immutable: []string{"*.sst"}})
	w.write("1.sst", "table")
	w.write("other", "x")
	w.cut()
	for name, linked := range map[string]bool{"1.sst": true, "other": false} {
		original, err := os.Stat(filepath.Join(w.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if os.SameFile(original, w.info(name)) != linked {
			t.Errorf("%s: linked is %v; want %v", name, !linked, linked)
		}
	}
	_ = os.Remove(filepath.Join(w.dir, "1.sst"))
	w.write("2.sst", "more")
	w.cut()
	w.wantCopy()
}

// TestFileThatIsWrittenToIsCopiedAgain: a cut waits until the writer has done.
func TestFileThatIsWrittenToIsCopiedAgain(t *testing.T) {
	w := newWorld(t, Options{})
	big := strings.Repeat("x", 40<<20)
	w.write("a", big)
	var writer sync.WaitGroup
	stop := make(chan struct{})
	started := make(chan struct{})
	writer.Go(func() {
		f, err := os.OpenFile(filepath.Join(w.dir, "a"), os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for i := 0; ; i++ {
			if _, err := f.WriteAt([]byte(fmt.Sprintf("%08d", i)), 0); err != nil {
				t.Error(err)
			}
			if _, err := f.WriteAt([]byte(fmt.Sprintf("%08d", i)), 40<<20-8); err != nil {
				t.Error(err)
			}
			if i == 0 {
				close(started)
			}
			select {
			case <-stop:
				return
			default:
				time.Sleep(time.Millisecond)
			}
		}
	})
	<-started
	time.AfterFunc(300*time.Millisecond, func() { close(stop) })
	w.cut()
	writer.Wait()
	data, err := os.ReadFile(w.e.copy.path("a"))
	if err != nil || string(data[:8]) != string(data[len(data)-8:]) {
		t.Errorf("the copy is torn: %q and %q, %v", data[:8], data[len(data)-8:], err)
	}
}

// TestFilesThatAreRenamed: a program that puts files in their places by renames, all the
// time, can be cut. Each file in the cut is one of those it wrote, as a whole.
func TestFilesThatAreRenamed(t *testing.T) {
	w := newWorld(t, Options{Exclude: []string{"*.tmp"}})
	put := func(i int) {
		tmp, name := filepath.Join(w.dir, "a.tmp"), filepath.Join(w.dir, "a")
		text := strings.Repeat(fmt.Sprintf("%08d", i), 1<<10)
		if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o600), os.Rename(tmp, name)); err != nil {
			t.Error(err)
		}
	}
	put(0)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
				put(i)
			}
		}
	})
	for range 20 {
		if err := w.tryCut(); err != nil {
			t.Error(err)
			break
		}
		data, err := os.ReadFile(w.e.copy.path("a"))
		if err != nil || string(data) != strings.Repeat(string(data[:8]), 1<<10) {
			t.Fatalf("the copy is torn, %v", err)
		}
	}
	close(stop)
	writer.Wait()
}

// TestStill: what changes before the program stands still is in the cut, and most of the
// copying is done by then.
func TestStill(t *testing.T) {
	var w *world
	w = newWorld(t, Options{Still: func(ctx context.Context, copy func(context.Context) error) error {
		if _, err := os.Stat(w.e.copy.path("a")); err != nil {
			t.Error("nothing was copied before")
		}
		w.write("b", "late")
		return copy(ctx)
	}})
	w.write("a", "1")
	w.cut()
	w.wantCopy()
	failure := errors.New("no")
	w.e.opts.Still = func(context.Context, func(context.Context) error) error { return failure }
	if err := w.tryCut(); !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
}

func TestErrors(t *testing.T) {
	w := newWorld(t, Options{})
	_, remove, err := w.e.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.tryCut(); !errors.Is(err, ErrBusy) {
		t.Errorf("a second cut: %v", err)
	}
	if err := errors.Join(remove(), remove()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.write("a", "1")
	if _, _, err := w.e.Cut(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a cut without time: %v", err)
	}
	if err := errors.Join(w.tryCut(), w.e.Close()); err != nil {
		t.Error(err)
	}
	if err := w.tryCut(); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	for _, c := range []struct {
		name, dir, cuts string
		opts            Options
	}{
		{"cuts in the state", w.dir, filepath.Join(w.dir, "cuts"), Options{}},
		{"state in the cuts", filepath.Join(w.cuts, "a"), w.cuts, Options{}},
		{"the same", w.dir, w.dir, Options{}},
		{"no pattern", w.dir, w.cuts, Options{Exclude: []string{"["}}},
		{"no pattern of immutable files", w.dir, w.cuts, Options{Immutable: []string{"["}}},
	} {
		if _, err := Open(c.dir, c.cuts, c.opts); err == nil {
			t.Errorf("%s is accepted", c.name)
		}
	}
}

// TestWithTheRunner commits cuts, and finds them in the checkpoints. What did not change is
// not read by a commit either.
func TestWithTheRunner(t *testing.T) {
	w := newWorld(t, Options{})
	job, err := checkpoint.New(mem.NewBucket(time.Now).Open(), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer job.Close(context.Background())
	r, err := runner.New(job, runner.Options{Interval: runner.Manual})
	if err != nil {
		t.Fatal(err)
	}
	task, err := r.Own(t.Context(), "a", runner.Spec{
		Dir:  filepath.Join(t.TempDir(), "run"),
		Open: func(context.Context, *runner.Restored) (runner.Cutter, error) { return runner.Engines{"": w.e}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		w.write("n", fmt.Sprint(i))
		c, err := task.Commit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		state, err := c.FS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if data, err := fs.ReadFile(state, "n"); err != nil || string(data) != fmt.Sprint(i) {
			t.Errorf("checkpoint %d has %q, %v", c.Seq, data, err)
		}
	}
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestErrorsOfTheCopy: what is wrong where the copy is made is told as that, at once. It does not
// pass for files that are written to, which is waited for.
func TestErrorsOfTheCopy(t *testing.T) {
	for _, c := range []struct{ name, gone string }{
		{"the directory for cuts is gone", "."},
		{"the copy is gone", "copy"},
		{"a directory of the copy is gone", "copy/sub"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.write("sub/a", "1")
			w.cut()
			if err := os.RemoveAll(filepath.Join(w.cuts, c.gone)); err != nil {
				t.Fatal(err)
			}
			w.write("sub/a", "22")
			if err := w.tryCut(); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, errMoving) || !strings.Contains(err.Error(), w.cuts) {
				t.Errorf("error %v", err)
			}
		})
	}
}
