package runner

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A preparer is a database that prepares its cuts.
type preparer struct {
	database
	prepare func(context.Context) error
}

func (p *preparer) Prepare(ctx context.Context) error { return p.prepare(ctx) }

// While a database prepares a cut, the loop goes on.
func TestPrepareIsBesideTheLoop(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		release := make(chan struct{})
		db := &preparer{prepare: func(context.Context) error { <-release; return nil }}
		task := w.ownEngines(Engines{"a": db, "b": &database{}})
		done := make(chan error)
		go func() {
			_, err := task.Commit(t.Context())
			done <- err
		}()
		synctest.Wait()
		if err := task.Step(within(t, time.Second), func(*Position) error { return nil }); err != nil || db.cuts > 0 {
			t.Errorf("a step: %v, after %d cuts", err, db.cuts)
		}
		close(release)
		if err := <-done; err != nil || db.cuts != 1 {
			t.Errorf("%v, after %d cuts", err, db.cuts)
		}
	})
}

// A database that cannot prepare fails the commit, and the next one has its turn.
func TestPrepareFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		fail := errHost
		db := &preparer{prepare: func(context.Context) error { return fail }}
		task := w.ownEngines(Engines{"a": db, "b": &database{}})
		if _, err := task.Commit(t.Context()); !errors.Is(err, errHost) || db.cuts > 0 {
			t.Errorf("%v, after %d cuts", err, db.cuts)
		}
		fail = nil
		if _, err := task.Commit(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// ownEngines owns a task that keeps its state in databases and is committed when asked.
func (w *world) ownEngines(es Engines) *Task {
	w.t.Helper()
	r := w.runner(w.job(), Options{Interval: Manual, Commits: 1})
	spec := Spec{Dir: w.dir, Stores: []string{"a", "b"}, Open: func(context.Context, *Restored) (Cutter, error) { return es, nil }}
	task, err := r.Own(w.t.Context(), "a", spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return task
}

var _ Preparer = Engines(nil)
