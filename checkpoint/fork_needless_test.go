package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// A collection that cannot find out whether a fork needs its source keeps the data, and says
// so.
func TestForkThatCannotBeAsked(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 100<<10))
		w.fork(source, "try", checkpoint.Ref{})
		task, _ := w.named(source, checkpoint.Options{}, faultstore.Fault{Kind: faultstore.FailBefore, Verb: "get", Key: "try/", Err: backend.ErrPermission})
		_, err := task.Collect(w.Context(), checkpoint.CollectOptions{})
		if !errors.Is(err, backend.ErrPermission) || !strings.Contains(err.Error(), `checkpoint 2 stays held for task "try"`) {
			t.Errorf("err = %v", err)
		}
		if s, err := w.status(source); err != nil || len(s.Forks) != 1 {
			t.Errorf("%+v, %v; want it held", s.Forks, err)
		}
	})
}

// Who gives a fork up because its context has ended leaves nothing held for it.
func TestForkIsGivenUp(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		commit(w, o, with(1, 100<<10)) // 2
		commit(w, o, with(2, 100<<10))
		synctest.Wait()
		ctx, cancel := context.WithCancel(w.Context())
		defer cancel()
		task := w.hookedTask(checkpoint.Options{}, func(verb, key string) {
			if verb == "get" && key == format.ManifestKey(dir, 2) { // after it is held
				cancel()
			}
		})
		if _, err := task.Fork(ctx, "try", checkpoint.ForkOptions{At: checkpoint.Seq(2)}); !errors.Is(err, context.Canceled) || errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("err = %v", err)
		}
		if s, err := w.status(source); err != nil || len(s.Forks) > 0 {
			t.Errorf("%+v, %v; want nothing held", s.Forks, err)
		}
	})
}

// A task that holds data for as many forks as it can drops what is needed no more, and takes
// another one.
func TestNeedlessHoldsMakeRoom(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 100<<10))
		task, _ := w.named(source, checkpoint.Options{})
		name := func(n int) string { return fmt.Sprintf("experiments/with-a-name-of-some-length/%d", n) }
		n := 0
		for ; n < 100; n++ {
			if _, err := task.Fork(w.Context(), name(n), checkpoint.ForkOptions{}); errors.Is(err, checkpoint.ErrConflict) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		full := with(2, 100<<10)
		full.State = full.State.Full()
		other, _ := w.named(name(3), lastOne)
		mustDo(t, second(other.Save(w.Context(), full, checkpoint.SaveOptions{})))
		if _, err := task.Fork(w.Context(), name(n), checkpoint.ForkOptions{}); err != nil || n == 100 {
			t.Errorf("after %d: %v", n, err)
		}
		w.wantVerified(name(n), 1)
	})
}

// Wherever it is killed, a fork that is being detached is whole.
func TestDetachIsKilledAnywhere(t *testing.T) {
	for _, kind := range []faultstore.Kind{faultstore.CrashFirst, faultstore.CrashAfter} {
		for n := 1; ; n++ {
			finished := false
			t.Run(fmt.Sprint(kind, " ", n), func(t *testing.T) {
				inWorld(t, func(w *world) { finished = detachIsKilled(w, faultstore.Fault{Kind: kind, On: n}) })
			})
			if finished || t.Failed() { // with -failfast no other one runs
				break
			}
		}
	}
}

func detachIsKilled(w *world, f faultstore.Fault) (finished bool) {
	o, _ := w.ownerWith(lastOne)
	commit(w, o, with(1, 100<<10))
	w.fork(source, "try", checkpoint.Ref{})
	owner := w.claimNamed("try", keepAll)
	commit(w, owner, with(1, 90<<10)) // shares data
	mustDo(w, owner.Release(w.Context()))
	synctest.Wait()
	store := faultstore.New(w.bucket.Open(), f)
	dying, err := checkpoint.New(store, checkpoint.Options{Backoff: backend.Backoff{Attempts: 4}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.Fatal(err)
	}
	task, _ := dying.Task("try")
	_, err = task.Detach(w.Context(), checkpoint.DetachOptions{})
	finished = len(store.Unfired()) > 0
	if finished && err != nil {
		w.Errorf("%v", err)
	}
	check := func() {
		w.Helper()
		try, _ := w.named("try", checkpoint.Options{})
		r, err := try.Verify(w.Context(), checkpoint.VerifyOptions{Data: true})
		if err != nil || r.Err() != nil || r.Intact == 0 {
			w.Errorf("%+v, %v", r, err)
		}
	}
	check()
	commit(w, o, with(2, 100<<10))
	commit(w, o, with(3, 100<<10))
	synctest.Wait()
	mustDo(w, w.collectNamed(source), w.collectNamed("try"))
	check()
	try, _ := w.named("try", checkpoint.Options{})
	if c, err := try.Detach(w.Context(), checkpoint.DetachOptions{}); err != nil || c.Offsets["in"] != "1" {
		w.Errorf("again: %+v, %v", c, err)
	}
	mustDo(w, w.collectNamed(source))
	if s, err := w.status(source); err != nil || len(s.Forks) > 0 {
		w.Errorf("%+v, %v; want nothing held", s.Forks, err)
	}
	check()
	return finished
}

// A fork that is detached while it is verified lacks no hold.
func TestForkIsDetachedWhileItIsVerified(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 100<<10))
		w.fork(source, "try", checkpoint.Ref{})
		var detached atomic.Bool
		job := newJob(w, hooked{w.bucket.Open(), func(verb, key string) {
			if verb == "list" && strings.HasPrefix(key, dir+manifests) && detached.CompareAndSwap(false, true) {
				try, _ := w.named("try", lastOne)
				mustDo(w, second(try.Detach(w.Context(), checkpoint.DetachOptions{})))
			}
		}}, checkpoint.Options{Logger: slog.New(slog.DiscardHandler)})
		task, err := job.Task("try")
		if err != nil {
			t.Fatal(err)
		}
		r, err := task.Verify(w.Context(), structure)
		if err != nil && !errors.Is(err, checkpoint.ErrGone) || err == nil && r.Err() != nil || !detached.Load() {
			t.Errorf("%+v, %v, %t", r, err, detached.Load())
		}
	})
}

// A verification that cannot find out whether a fork's data is held fails.
func TestSourceThatCannotBeAsked(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 100<<10))
		w.fork(source, "try", checkpoint.Ref{})
		task, _ := w.named("try", checkpoint.Options{}, faultstore.Fault{Kind: faultstore.FailBefore, Verb: "get", Key: dir + manifests, Err: backend.ErrPermission})
		if r, err := task.Verify(w.Context(), structure); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("%+v, %v; want an error", r, err)
		}
	})
}
