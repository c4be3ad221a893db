package checkpoint_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// A task is deleted with all that it has, and may live again: its numbers go on.
func TestDelete(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _ := w.named(source, lastOne)
		del := func(opts checkpoint.DeleteOptions) (checkpoint.CollectResult, error) {
			return task.Delete(w.Context(), opts)
		}
		if _, err := del(checkpoint.DeleteOptions{}); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
			t.Errorf("of what does not exist: %v", err)
		}
		o, _ := w.ownerWith(keepAll)
		s := with(1, 100<<10)
		s.Savepoint = "for ever"
		commit(w, o, s)
		commit(w, o, with(2, 100<<10))
		before := len(w.objects(""))
		if _, err := del(checkpoint.DeleteOptions{}); !errors.Is(err, checkpoint.ErrClaimed) {
			t.Errorf("of a claimed task: %v", err)
		}
		if r, err := del(checkpoint.DeleteOptions{Fence: true, DryRun: true}); err != nil || r.Segments != 4 || r.Manifests != 0 || r.Bytes < 200<<10 {
			t.Errorf("a dry run: %+v, %v", r, err)
		}
		if n := len(w.objects("")); n != before {
			t.Errorf("there are %d objects, want %d", n, before)
		}
		r, err := del(checkpoint.DeleteOptions{Fence: true})
		if err != nil || r.Segments != 4 {
			t.Errorf("%+v, %v", r, err)
		}
		w.wantObjects(segments, 0)
		_, err = o.Commit(w.Context(), with(3, 100<<10))
		if !errors.Is(err, checkpoint.ErrFenced) || !strings.Contains(err.Error(), "was deleted by") {
			t.Errorf("the owner commits: %v", err)
		}
		if _, err := del(checkpoint.DeleteOptions{}); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
			t.Errorf("once more: %v", err)
		}
		if status, err := task.Status(w.Context()); err != nil || !status.Deleted || status.Latest != nil {
			t.Errorf("%+v, %v", status, err)
		}
		if err := second(task.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{})); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
			t.Errorf("an amendment: %v", err)
		}
		again := claim(w, task)
		c := commit(w, again, with(4, 100<<10))
		if c.Seq != 6 || c.Epoch != 3 {
			t.Errorf("it lives again as %+v", c)
		}
		w.wantState(source, "4")
		time.Sleep(checkpoint.FenceWindow + time.Minute)
		commit(w, again, with(5, 100<<10))
		mustDo(t, w.collectNamed(source))
		w.wantObjects(manifests, 1)
		w.wantVerified(source, 1)
	})
}

// Wherever a deletion is killed, the task is whole or deleted, and can be deleted again.
func TestDeleteIsKilledAnywhere(t *testing.T) {
	for n := 1; ; n++ {
		finished := false
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, _ := w.ownerWith(keepAll)
				commit(w, o, with(1, 100<<10))
				w.fork(source, "try", checkpoint.Ref{})
				store := faultstore.New(w.bucket.Open(), faultstore.Fault{Kind: faultstore.CrashAfter, On: n})
				dying, err := checkpoint.New(store, checkpoint.Options{Backoff: backend.Backoff{Attempts: 4}})
				if err != nil {
					t.Fatal(err)
				}
				task, _ := dying.Task("try")
				_, err = task.Delete(w.Context(), checkpoint.DeleteOptions{})
				finished = len(store.Unfired()) > 0
				if finished != (err == nil) {
					t.Errorf("%v", err)
				}
				status, err := w.status("try")
				if err != nil {
					t.Fatal(err)
				}
				if !status.Deleted {
					w.wantState("try", "1")
				}
				fork, _ := w.named("try", checkpoint.Options{})
				if _, err := fork.Delete(w.Context(), checkpoint.DeleteOptions{}); err != nil && !errors.Is(err, checkpoint.ErrNoCheckpoint) {
					t.Errorf("again: %v", err)
				}
				mustDo(t, w.collectNamed("try"), w.collectNamed(source))
				if s, err := w.status(source); err != nil || len(s.Forks) != 0 {
					t.Errorf("%+v, %v", s, err)
				}
				w.wantState(source, "1")
			})
		})
		if finished || t.Failed() {
			break
		}
	}
}
