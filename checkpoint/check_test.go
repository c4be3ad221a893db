package checkpoint_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// An owner can check whether it is still the owner. That takes one request.
func TestOwnerChecks(t *testing.T) {
	inWorld(t, func(w *world) {
		task, job, _ := w.process()
		o := claim(w, task)
		commit(w, o, checkpoint.Snapshot{Offsets: map[string]string{"a": "1"}})
		synctest.Wait() // for the clean-up after the first commit
		before := job.Stats()
		if err := o.Check(w.Context()); err != nil {
			t.Fatal(err)
		}
		if n := requests(before, job.Stats()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
		heir, _, _ := w.process()
		claim(w, heir)
		for range 2 {
			if err := o.Check(w.Context()); !errors.Is(err, checkpoint.ErrFenced) {
				t.Errorf("%v, want ErrFenced", err)
			}
		}
	})
}

// A check settles a commit that is in doubt, and does nothing else.
func TestCheckSettles(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.owner()
		store.Arm(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1}, faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create"})
		if _, err := o.Commit(w.Context(), at(1)); !errors.Is(err, checkpoint.ErrUnknown) {
			t.Fatalf("commit: %v, want ErrUnknown", err)
		}
		if err := o.Check(w.Context()); !errors.Is(err, checkpoint.ErrUnsettled) || errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("check of a dead store: %v, want ErrUnsettled, and not ErrUnknown", err)
		}
		store.Heal()
		if err := o.Check(w.Context()); err != nil {
			t.Fatal(err)
		}
		c, err := o.Checkpoint(w.Context())
		if err != nil || c.Seq != 2 {
			t.Errorf("%+v, %v; want checkpoint 2", c, err)
		}
		w.wantHistory("1")
	})
}

// requests returns the number of requests between two Stats of a store.
func requests(before, after backend.Stats) (n int64) {
	for _, u := range [][2]backend.Count{
		{before.Create, after.Create}, {before.Put, after.Put}, {before.Get, after.Get},
		{before.List, after.List}, {before.Delete, after.Delete},
	} {
		n += u[1].Calls - u[0].Calls
	}
	return n
}
