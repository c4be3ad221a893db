package checkpoint_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// hookedWrites calls a function before each put and each deletion, where a hooked store calls none: there
// a test may let its process sleep.
type hookedWrites struct {
	backend.Store
	before func(verb, key string)
}

func (s hookedWrites) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	s.before("put", key)
	return s.Store.Put(ctx, key, data)
}

func (s hookedWrites) Delete(ctx context.Context, keys ...string) error {
	s.before("delete", keys[0])
	return s.Store.Delete(ctx, keys...)
}

// Commits do not wait for clean-ups. What these have not come to is done at once then, and nothing is left
// out.
func TestCleanUpsThatLagBehindAreDoneTogether(t *testing.T) {
	inWorld(t, func(w *world) {
		var deletes atomic.Int64
		hold := make(chan struct{})
		opts := lastOne
		opts.Logger = slog.New(slog.DiscardHandler)
		task, err := newJob(w, hookedWrites{w.bucket.Open(), func(verb, _ string) {
			if verb == "delete" {
				deletes.Add(1)
				<-hold
			}
		}}, opts).Task("orders/7")
		if err != nil {
			w.Fatal(err)
		}
		o := claim(w, task)
		commit(w, o, with(1, 200<<10))
		synctest.Wait() // for the collection
		for n := range 30 {
			commit(w, o, with(n+2, 200<<10))
			synctest.Wait()
		}
		w.wantObjects(segments, 31)
		close(hold)
		synctest.Wait()
		w.wantObjects(segments, 1)
		if n := deletes.Load(); n != 2 {
			t.Errorf("%d deletions, want 2: the one that was held, and all others", n)
		}
		w.wantReadable()
		w.wantNothingNeedless()
	})
}

// All owners of a job share the turns for clean-ups. One without a turn sends nothing, and its commits do
// not wait for it.
func TestCleanUpsTakeTurns(t *testing.T) {
	inWorld(t, func(w *world) {
		var lists atomic.Int64
		job := newJob(w, hooked{w.bucket.Open(), func(verb, _ string) {
			if verb == "list" {
				lists.Add(1)
			}
		}}, checkpoint.Options{Logger: slog.New(slog.DiscardHandler)})
		var owners []*checkpoint.Owner
		for n := range 3 {
			task, err := job.Task(fmt.Sprint("orders/", n))
			if err != nil {
				w.Fatal(err)
			}
			owners = append(owners, claim(w, task))
		}
		giveBack := checkpoint.TakeCleanUps(job)
		before := lists.Load()
		for n, o := range owners {
			commit(w, o, at(n)) // the first one of an owner collects
			synctest.Wait()
		}
		if n := lists.Load() - before; n != 0 {
			t.Errorf("%d lists by clean-ups whose turn it is not", n)
		}
		save(w, job, "alone")
		giveBack()
		synctest.Wait()
		if n := lists.Load() - before; n < int64(len(owners)) {
			t.Errorf("%d lists by the clean-ups of %d owners", n, len(owners))
		}
		checkpoint.TakeCleanUps(job)() // they have given back their turns
	})
}

// save saves a task without an owner, twice, so that there is something to delete.
func save(w *world, job *checkpoint.Job, name string) {
	task, err := job.Task(name)
	for n := range 2 {
		if err == nil {
			_, err = task.Save(w.Context(), with(n, 200<<10), checkpoint.SaveOptions{})
		}
	}
	if err != nil {
		w.Error(err)
	}
}

// An owner that has cleaned up needs no turn to be closed.
func TestIdleOwnerIsClosedWithoutATurn(t *testing.T) {
	inWorld(t, func(w *world) {
		_, job, _, o := w.heldJob()
		giveBack := checkpoint.TakeCleanUps(job)
		defer giveBack()
		if err := o.Close(w.Context()); err != nil {
			t.Error(err)
		}
	})
}
