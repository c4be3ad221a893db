package runner

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// Two processes of one host cannot work in one directory, and the second does not
// fence the first.
func TestRunDirIsLocked(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		other := w.runner(w.job(), Options{Interval: Manual})
		_, _, err := w.tryOwn(other, "a")
		if !errors.Is(err, ErrDirInUse) || !strings.Contains(err.Error(), task.spec.Dir) {
			t.Errorf("%v", err)
		}
		h.mustAdd(task)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		w.own(other, "a")
	})
}

// What a killed process has left is removed: its cuts, and state that belongs to no
// checkpoint.
func TestRunDirIsSwept(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		dir := filepath.Join(w.dir, "x")
		write := func(name, data string) {
			name = filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o777), os.WriteFile(name, []byte(data), 0o666)); err != nil {
				t.Fatal(err)
			}
		}
		write("cuts/7/n", "99")
		write("state/n", "99") // was never committed
		if err := os.Chmod(filepath.Join(dir, "cuts/7"), 0o500); err != nil {
			t.Fatal(err)
		}
		r := w.runner(w.job(), Options{Interval: Manual})
		task, h := w.own(r, "a", func(s *Spec) { s.Dir = dir })
		if h.n != 0 {
			t.Errorf("it goes on from %d, which no checkpoint has", h.n)
		}
		if left, err := os.ReadDir(h.restored.Cuts); err != nil || len(left) > 0 {
			t.Errorf("%v is left of cuts, %v", left, err)
		}
		h.mustAdd(task)
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		write("state/n", "99") // after the last checkpoint
		write("state/more", "99")
		_, h = w.own(r, "a", func(s *Spec) { s.Dir = dir })
		if _, err := os.Stat(filepath.Join(h.restored.Dir(""), "more")); h.n != 1 || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it goes on from %d, %v", h.n, err)
		}
	})
}

// Stores that the task no longer has go from the run directory too.
func TestStoresOfOthersAreSwept(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		dir := filepath.Join(w.dir, "x")
		if err := os.MkdirAll(filepath.Join(dir, "state/old"), 0o777); err != nil {
			t.Fatal(err)
		}
		_, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a", func(s *Spec) {
			s.Dir, s.Stores = dir, []string{"new"}
		})
		if _, err := os.Stat(h.restored.Dir("new")); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "state/old")); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}

// On the same host, the state of the run before is used again: hardly anything is
// fetched.
func TestRunDirIsReusedWarm(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		big := make([]byte, 4<<20)
		rand.Read(big)
		job := w.job()
		r := w.runner(job, Options{Interval: Manual})
		open := func(_ context.Context, restored *Restored) (Cutter, error) {
			return dirCutter(restored.Dir("")), nil
		}
		own := func(dir string) (fetched int64, restored *Restored, task *Task) {
			before := usage(job)["get"].Bytes
			task, err := r.Own(t.Context(), "a", Spec{Dir: dir, Open: open})
			if err != nil {
				t.Fatal(err)
			}
			return usage(job)["get"].Bytes - before, task.Restored(), task
		}
		dir := filepath.Join(w.dir, "x")
		_, restored, task := own(dir)
		if err := os.WriteFile(filepath.Join(restored.Dir(""), "big"), big, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			dir         string
			least, most int64
		}{{dir, 0, 1 << 20}, {filepath.Join(w.dir, "elsewhere"), 4 << 20, 5 << 20}} {
			fetched, restored, task := own(c.dir)
			if fetched < c.least || fetched > c.most {
				t.Errorf("%d bytes were fetched; expected %d to %d", fetched, c.least, c.most)
			}
			data, err := os.ReadFile(filepath.Join(restored.Dir(""), "big"))
			if err != nil || !bytes.Equal(data, big) {
				t.Errorf("the state is not as it was: %v", err)
			}
			if err := task.Release(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A dirCutter is a state that is its directory. It does not change.
type dirCutter string

func (d dirCutter) Cut(context.Context) (Cut, error) {
	return Cut{Stores: map[string]checkpoint.Source{"": checkpoint.Dir(string(d))}}, nil
}

func (d dirCutter) Close() error { return nil }

func TestDirName(t *testing.T) {
	seen := make(map[string]string)
	for _, task := range []string{"a", "A", "orders/7", "orders_7", "Partition 3", "", "..", "con", "ü", strings.Repeat("x", 1000), strings.Repeat("x", 1001)} {
		name := dirName(task)
		folded := strings.ToLower(name)
		if other, ok := seen[folded]; ok {
			t.Errorf("%q and %q share %q", task, other, name)
		}
		seen[folded] = task
		if len(name) > 80 || strings.ContainsAny(name, `/\: `) || name[0] == '.' && task != "" {
			t.Errorf("%q is %q", task, name)
		}
	}
}
