package checkpoint_test

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// Commits do not wait for clean-ups. What these have not come to is done at once then, and nothing is left
// out: what waits does not grow with the commits.
func TestCleanUpsThatLagBehindAreDoneTogether(t *testing.T) {
	inWorld(t, func(w *world) {
		var deletes atomic.Int64
		hold := make(chan struct{})
		o := claim(w, w.hookedTask(lastOne, func(verb, _ string) {
			if verb == "delete" {
				deletes.Add(1)
				<-hold
			}
		}))
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
		giveBack()
		synctest.Wait()
		if n := lists.Load() - before; n < int64(len(owners)) {
			t.Errorf("%d lists by the clean-ups of %d owners", n, len(owners))
		}
		checkpoint.TakeCleanUps(job)() // they have given back their turns
	})
}
