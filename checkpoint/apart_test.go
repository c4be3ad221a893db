package checkpoint_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A proxied store is one behind a proxy that sets Date itself: the replies to
// writes tell its time, and listings tell the store's.
type proxied struct {
	backend.Store
	ahead *time.Duration // by how much the proxy's clock is
}

func (s proxied) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	o, err := s.Store.Create(ctx, key, data)
	return s.told(o), err
}

func (s proxied) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	o, err := s.Store.Put(ctx, key, data)
	return s.told(o), err
}

func (s proxied) told(o backend.Object) backend.Object {
	if !o.ModTime.IsZero() {
		o.ModTime = o.ModTime.Add(*s.ahead)
	}
	return o
}

// behindProxy opens the task as a process behind such a proxy.
func (w *world) behindProxy(ahead *time.Duration, opts checkpoint.Options) (*checkpoint.Task, *checkpoint.Job) {
	w.Helper()
	job := newJob(w, proxied{w.bucket.Open(), ahead}, opts)
	task, err := job.Task("orders/7")
	if err != nil {
		w.Fatal(err)
	}
	return task, job
}

// wantApart makes sure that err tells both times, whose clock is meant, and what
// to do.
func (w *world) wantApart(what string, err error) {
	w.Helper()
	if !errors.Is(err, backend.ErrUnsupported) {
		w.Errorf("%s: %v, want ErrUnsupported", what, err)
		return
	}
	for _, part := range []string{"orders_2f7/manifests/", "Z in its reply, and 2000-01-01T0", "Date", "reverse proxy", "proxy_pass_header Date"} {
		if !strings.Contains(err.Error(), part) {
			w.Errorf("%s: %v; it does not say %q", what, err, part)
		}
	}
}

// An owner behind a proxy whose clock is two hours behind slept for a little
// longer than that. Its number was used by another, and is free again; by the
// times that it compares, only minutes went by.
func TestOwnerBehindAProxyWithAWrongClock(t *testing.T) {
	inWorld(t, func(w *world) {
		behind := -2 * time.Hour
		task, _ := w.behindProxy(&behind, lastOne)
		sleeper, err := task.Claim(w.Context(), checkpoint.ClaimOptions{}) // 1
		if err != nil {
			w.wantApart("claim", err)
			sleeper = nil
		}
		heir, _ := w.ownerWith(lastOne) // 2
		commit(w, heir, at(1))
		time.Sleep(checkpoint.FenceWindow + time.Minute)
		commit(w, heir, at(2))
		time.Sleep(checkpoint.FenceWindow)
		commit(w, heir, at(3))
		synctest.Wait()
		if sleeper == nil {
			return
		}
		if c, err := sleeper.Commit(w.Context(), at(99)); err == nil {
			t.Errorf("a fenced owner's checkpoint %d is acknowledged, and in no history", c.Seq)
		}
		w.wantHistory("3")
	})
}

// What a reply and a listing say of one object must agree within minutes.
func TestRepliesAndListingsMustAgree(t *testing.T) {
	uses := map[string]func(*world, *checkpoint.Task) error{
		"claim": func(w *world, t *checkpoint.Task) error {
			return second(t.Claim(w.Context(), checkpoint.ClaimOptions{}))
		},
		"claim at 1": func(w *world, t *checkpoint.Task) error {
			return second(t.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(1)}))
		},
		"save":     func(w *world, t *checkpoint.Task) error { return second(t.Save(w.Context(), at(9))) },
		"rollback": func(w *world, t *checkpoint.Task) error { return second(t.Rollback(w.Context(), checkpoint.Seq(1))) },
		"prune": func(w *world, t *checkpoint.Task) error {
			return second(t.Prune(w.Context(), keepOne, checkpoint.PruneOptions{}))
		},
	}
	for what, use := range uses {
		for _, c := range []struct {
			ahead time.Duration
			ok    bool
		}{
			{0, true}, {5 * time.Minute, true}, {-5 * time.Minute, true},
			{5*time.Minute + time.Second, false}, {-5*time.Minute - time.Second, false},
			{2 * time.Hour, false}, {-2 * time.Hour, false}, {-30 * 365 * 24 * time.Hour, false},
		} {
			inWorld(t, func(w *world) {
				w.saved(2)
				task, _ := w.behindProxy(&c.ahead, keepAll)
				err := use(w, task)
				switch {
				case c.ok && err != nil:
					t.Errorf("%s with replies %v ahead: %v", what, c.ahead, err)
				case !c.ok:
					w.wantApart(what, err)
					if !errors.Is(err, checkpoint.ErrUnknown) {
						t.Errorf("%s: %v; it was made, so that nothing else would be true", what, err)
					}
				}
			})
		}
	}
}

// A save that is refused for its times has been made, and deletes nothing by a
// clock that it does not believe.
func TestSaveBehindAProxyWithAWrongClock(t *testing.T) {
	inWorld(t, func(w *world) {
		ahead := 2 * time.Hour
		w.saved(1)
		task, _ := w.behindProxy(&ahead, lastOne)
		_, err := task.Save(w.Context(), with(2, 20<<10))
		w.wantApart("save", err)
		w.wantHistory("2")
		w.wantReadable()
		w.wantObjects(manifests, 2)
	})
}

// A proxy may come to stand before an owner that lives on, or lose its time. The
// owner's own clock tells it to look, for one request.
func TestOwnerMeetsAnotherClock(t *testing.T) {
	for _, jump := range []time.Duration{6 * time.Minute, -6 * time.Minute, 20 * time.Minute, 3 * time.Hour, -3 * time.Hour} {
		inWorld(t, func(w *world) {
			var ahead time.Duration
			task, job := w.behindProxy(&ahead, keepAll)
			o := claim(w, task)
			for n := range 3 {
				time.Sleep(10 * time.Minute)
				commit(w, o, at(n))
			}
			synctest.Wait()
			ahead = jump
			_, err := o.Commit(w.Context(), at(3))
			w.wantApart("commit", err)
			if !errors.Is(err, checkpoint.ErrUnknown) || errors.Is(err, checkpoint.ErrFenced) {
				t.Errorf("commit: %v; it was made, and nobody has fenced it", err)
			}
			ahead = 0
			commit(w, o, at(4)) // settles the one before
			w.wantHistory("4 3 2 1 0")
			time.Sleep(10 * time.Minute)
			before := job.Stats()
			commit(w, o, at(5))
			if n := job.Stats().List.Calls - before.List.Calls; n != 0 {
				t.Errorf("with all clocks right again a commit took %d listings", n)
			}
		})
	}
}

// A clock that goes wrong little by little is noticed too.
func TestOwnerMeetsADriftingClock(t *testing.T) {
	inWorld(t, func(w *world) {
		var ahead time.Duration
		task, _ := w.behindProxy(&ahead, keepAll)
		o := claim(w, task)
		var err error
		for n := 0; err == nil && n < 10; n++ {
			time.Sleep(10 * time.Minute)
			ahead += time.Minute
			_, err = o.Commit(w.Context(), at(n))
		}
		w.wantApart("commit", err)
		if ahead != 6*time.Minute {
			t.Errorf("noticed when the clock was %v ahead", ahead)
		}
	})
}

// While the clocks agree nothing is asked for, and a machine that was suspended
// costs one request.
func TestClocksThatAgreeCostNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		ahead := 4 * time.Minute
		task, job := w.behindProxy(&ahead, lastOne)
		o := claim(w, task)
		commit(w, o, at(0))
		synctest.Wait()
		for n := range 50 {
			time.Sleep(29 * time.Minute)
			before := job.Stats()
			commit(w, o, at(n+1))
			synctest.Wait()
			if lists := job.Stats().List.Calls - before.List.Calls; lists != 0 {
				t.Fatalf("commit %d took %d listings", n, lists)
			}
		}
	})
}
