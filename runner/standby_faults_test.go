package runner

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// Every kind of fault at every call of a standby, from its first look to its first commit as
// the owner. Whatever comes of it, its directory is free afterwards or the task's, and what
// was acknowledged is there.
func TestStandbyUnderEveryFault(t *testing.T) {
	underEveryFault(t, standbyUnderFault)
}

// standbyUnderFault reports whether the fault struck.
func standbyUnderFault(t *testing.T, w *world, fault faultstore.Fault) bool {
	opts := Options{Interval: Manual, Heartbeat: 2 * time.Second, CommitTimeout: time.Minute}
	owner, kill := w.crashing(opts)
	task, h := w.own(owner, "a")
	commit := func() {
		h.mustAdd(task)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	commit()
	var store *faultstore.Store
	r := w.runner(w.job(faulty(&store)), opts)
	store.Arm(fault)
	s, err := r.Follow(t.Context(), "a", FollowSpec{Dir: filepath.Join(w.dir, "b"), Interval: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(3 * time.Second)
		commit()
		kill()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	why, err := s.Wait(ctx, 5*time.Second)
	switch {
	case store.Crashed():
	case err != nil || why != WentSilent:
		t.Errorf("it waited, and got %q, %v", why, err)
	default:
		next, heir, err := w.promote(s)
		if err == nil {
			if heir.sum() != 2 {
				t.Errorf("it goes on from %d; 2 was acknowledged", heir.sum())
			}
			_, _ = next.Commit(ctx)
			_ = next.Release(ctx)
			<-next.Done()
		} else if len(store.Unfired()) > 0 {
			t.Errorf("without a fault: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	struck := len(store.Unfired()) == 0
	store.Disarm()
	w.wantHeir()
	if store.Land() > 0 { // what was late comes when others have long gone on
		w.wantHeir()
	}
	return struck
}

// wantHeir takes the task on, in the standby's directory.
func (w *world) wantHeir() {
	w.t.Helper()
	task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a", func(s *Spec) { s.Dir = filepath.Join(w.dir, "b") })
	if h.sum() != 2 {
		w.t.Errorf("the next owner goes on from %d; 2 was acknowledged", h.sum())
	}
	if _, err := task.Commit(w.t.Context()); err != nil {
		w.t.Error(err)
	}
	if err := task.Release(w.t.Context()); err != nil {
		w.t.Error(err)
	}
}
