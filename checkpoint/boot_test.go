package checkpoint_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// The store's clock is the machine's, as on file://. The machine is suspended for 72
// minutes, which the process's clock does not count. Meanwhile another owner goes on, and
// its claim becomes old and is deleted. Then somebody sets the clock back by 70 minutes. The
// first owner's commit is lost, and says so.
func TestClockIsSetBackWhileAnOwnerSleeps(t *testing.T) {
	inWorld(t, func(w *world) {
		var suspended, setBack time.Duration
		w.bucket = mem.NewBucket(func() time.Time { return time.Now().Add(suspended - setBack) })
		job := newJob(w, w.bucket.Open(), checkpoint.Options{Logger: slog.New(slog.DiscardHandler)})
		defer func() { _ = job.Close(w.Context()) }()
		checkpoint.SetSinceBoot(job, func() time.Duration { return suspended })
		sleeper, err := claimIn(w.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		commit(w, sleeper, at(1)) // 2
		synctest.Wait()
		other, _ := w.ownerWith(lastOne) // 3
		commit(w, other, at(2))
		synctest.Wait()
		suspended = 72 * time.Minute
		commit(w, other, at(3))
		commit(w, other, at(4))
		synctest.Wait()
		if w.exists(format.ManifestKey(dir, 3)) {
			t.Fatal("the claim was not deleted")
		}
		setBack = 70 * time.Minute
		if _, err := sleeper.Commit(w.Context(), at(5)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("the sleeper's commit: %v", err)
		}
		w.wantHistory("4")
	})
}

// afterLists calls then at the end of the n-th listing of manifests.
type afterLists struct {
	backend.Store
	n    int
	then func()
}

func (s *afterLists) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		s.Store.List(ctx, prefix, after)(yield)
		if !strings.Contains(prefix, manifests) {
			return
		}
		if s.n--; s.n == 0 {
			s.then()
		}
	}
}

// The same for a claim: the machine is suspended after its last listing.
func TestClockIsSetBackWhileAClaimSleeps(t *testing.T) {
	for name, ref := range map[string]checkpoint.Ref{"claim": {}, "claim with At": checkpoint.Seq(2)} {
		t.Run(name, func(t *testing.T) {
			lists := 0
			inWorld(t, func(w *world) {
				counted := &afterLists{w.bucket.Open(), 0, func() {}}
				w.claimWith(counted, ref, func() time.Duration { return 0 })
				lists = -counted.n
			})
			inWorld(t, func(w *world) { w.sleepInClaim(ref, lists) })
		})
	}
}

// claimWith commits as one owner, and then claims with a job of its own on store.
func (w *world) claimWith(store backend.Store, ref checkpoint.Ref, sinceBoot func() time.Duration) *checkpoint.Owner {
	w.Helper()
	first, _ := w.owner()   // 1
	commit(w, first, at(1)) // 2
	mustDo(w, first.Close(w.Context()))
	job := newJob(w, store, checkpoint.Options{Logger: slog.New(slog.DiscardHandler)})
	w.Cleanup(func() { _ = job.Close(context.Background()) })
	checkpoint.SetSinceBoot(job, sinceBoot)
	task, err := job.Task("orders/7")
	if err != nil {
		w.Fatal(err)
	}
	o, err := task.Claim(w.Context(), checkpoint.ClaimOptions{At: ref}) // 3
	if err != nil {
		w.Fatal(err)
	}
	return o
}

func (w *world) sleepInClaim(ref checkpoint.Ref, lists int) {
	w.Helper()
	var suspended, setBack time.Duration
	w.bucket = mem.NewBucket(func() time.Time { return time.Now().Add(suspended - setBack) })
	sleep := func() {
		other, _ := w.ownerWith(lastOne) // 4
		commit(w, other, at(2))
		synctest.Wait()
		suspended = 72 * time.Minute
		commit(w, other, at(3))
		commit(w, other, at(4))
		synctest.Wait()
		if w.exists(format.ManifestKey(dir, 4)) {
			w.Fatal("the number of the sleeper's commit is not free")
		}
		setBack = 70 * time.Minute
	}
	sleeper := w.claimWith(&afterLists{w.bucket.Open(), lists, sleep}, ref, func() time.Duration { return suspended })
	if _, err := sleeper.Commit(w.Context(), at(5)); !errors.Is(err, checkpoint.ErrFenced) {
		w.Errorf("the sleeper's commit: %v", err)
	}
	w.wantHistory("4")
}

// An owner whose machine was not suspended, and that commits often, sends nothing for it.
func TestBootClockCostsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		start := time.Now()
		job := newJob(w, w.bucket.Open(), checkpoint.Options{Logger: slog.New(slog.DiscardHandler)})
		defer func() { _ = job.Close(w.Context()) }()
		checkpoint.SetSinceBoot(job, func() time.Duration { return time.Since(start) })
		o, err := claimIn(w.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		commit(w, o, at(0))
		synctest.Wait()
		for _, c := range []struct {
			pause time.Duration
			lists int64
		}{{0, 0}, {checkpoint.FenceWindow / 4, 0}, {checkpoint.FenceWindow / 4, 0}, {checkpoint.FenceWindow/4 + time.Second, 1}, {time.Minute, 0}} {
			time.Sleep(c.pause)
			before := job.Stats().List.Calls
			commit(w, o, at(1))
			if n := job.Stats().List.Calls - before; n != c.lists {
				t.Errorf("a commit after %v took %d lists, want %d", c.pause, n, c.lists)
			}
		}
	})
}
