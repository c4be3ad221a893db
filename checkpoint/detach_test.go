package checkpoint_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A fork that was detached needs its source no more.
func TestDetach(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		w.fork(source, "try", checkpoint.Ref{})
		task, _ := w.named("try", keepAll)
		detach := func(opts checkpoint.DetachOptions) error { return second(task.Detach(w.Context(), opts)) }

		f := claim(w, task)
		commit(w, f, with(1, 90<<10)) // shares data
		if err := detach(checkpoint.DetachOptions{}); !errors.Is(err, checkpoint.ErrClaimed) {
			t.Errorf("of a claimed fork: %v", err)
		}
		mustDo(t, f.Release(w.Context()), second(task.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{At: checkpoint.Seq(1)})))
		if err := detach(checkpoint.DetachOptions{}); !errors.Is(err, checkpoint.ErrConflict) || !strings.Contains(err.Error(), `savepoint "x"`) {
			t.Errorf("of a savepoint: %v", err)
		}
		w.wantState("try", "1 1")
		mustDo(t, second(task.RemoveSavepoint(w.Context(), "x")))
		for range 2 { // the second time, nothing is left to do
			c, err := task.Detach(w.Context(), checkpoint.DetachOptions{})
			if err != nil || c.Seq != 7 || c.Offsets["in"] != "1" {
				t.Fatalf("%+v, %v", c, err)
			}
		}
		for _, name := range []string{"try", source} {
			if s, err := w.status(name); err != nil || s.ForkedFrom != nil || len(s.Forks) > 0 {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
		}
		commit(w, o, with(2, 100<<10))
		synctest.Wait()
		mustDo(t, w.collectNamed(source), w.collectNamed("try"))
		w.wantState(source, "2")
		w.wantState("try", "1")
		w.wantVerified("try", 1)
		other, _ := w.named(source, checkpoint.Options{})
		mustDo(t, second(other.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true})))
		w.wantState("try", "1")
	})
}

// Who owns the files of a fork is not forgotten when it is detached.
func TestDetachKeepsWhatFilesAre(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		at := time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)
		commit(w, o, checkpoint.Snapshot{
			Labels: map[string]string{"a": "b"}, OffsetsAre: checkpoint.LastDone,
			State: checkpoint.FS(fstest.MapFS{
				"dir":      {Mode: fs.ModeDir | 0o750, ModTime: at},
				"dir/file": {Data: noise(100 << 10), Mode: 0o640, ModTime: at},
				"link":     {Data: []byte("dir/file"), Mode: fs.ModeSymlink | 0o777, ModTime: at},
			}),
		})
		w.fork(source, "try", checkpoint.Ref{})
		task, _ := w.named("try", checkpoint.Options{})
		entries := func() ([]checkpoint.Entry, *checkpoint.Checkpoint) {
			c, err := task.Latest(w.Context())
			if err != nil {
				t.Fatal(err)
			}
			list, err := c.Entries(w.Context())
			if err != nil {
				t.Fatal(err)
			}
			return list, c
		}
		before, was := entries()
		mustDo(t, second(task.Detach(w.Context(), checkpoint.DetachOptions{})))
		after, is := entries()
		if !slices.Equal(before, after) {
			t.Errorf("%+v, want %+v", after, before)
		}
		if is.Labels["a"] != "b" || is.OffsetsAre != was.OffsetsAre || is.Seq == was.Seq {
			t.Errorf("%+v, want %+v", is, was)
		}
	})
}
