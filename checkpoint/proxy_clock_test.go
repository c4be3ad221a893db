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

// A proxied store is behind a proxy that sets Date itself: replies to writes have the
// proxy's time, and listings have the store's.
type proxied struct {
	backend.Store
	ahead *time.Duration // how far the proxy's clock is ahead
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

// wantApart checks that err names both times and the clocks, and says what to do.
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

// The clock of the owner's proxy is two hours behind. The owner slept a little longer
// than that, and its number was used by another writer and is free again. By the
// times that it compares, only minutes have passed.
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

// The times of one object in replies and listings must agree within minutes.
func TestRepliesAndListingsMustAgree(t *testing.T) {
	uses := map[string]func(*world, *checkpoint.Task) error{
		"claim": func(w *world, t *checkpoint.Task) error {
			return second(t.Claim(w.Context(), checkpoint.ClaimOptions{}))
		},
		"claim at 1": func(w *world, t *checkpoint.Task) error {
			return second(t.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(1)}))
		},
		"save": func(w *world, t *checkpoint.Task) error {
			return second(t.Save(w.Context(), at(9), checkpoint.SaveOptions{}))
		},
		"rollback": func(w *world, t *checkpoint.Task) error {
			return second(t.Rollback(w.Context(), checkpoint.Seq(1), checkpoint.RollbackOptions{}))
		},
		"prune": func(w *world, t *checkpoint.Task) error {
			return second(t.Prune(w.Context(), keepOne, checkpoint.PruneOptions{}))
		},
		"savepoint": func(w *world, t *checkpoint.Task) error {
			return second(t.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{}))
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
						t.Errorf("%s: %v; it was made, so the error must be ErrUnknown", what, err)
					}
				}
			})
		}
	}
}

// A save that is refused because of its times has been made. It deletes nothing by a
// clock that may be wrong.
func TestSaveBehindAProxyWithAWrongClock(t *testing.T) {
	inWorld(t, func(w *world) {
		ahead := 2 * time.Hour
		w.saved(1)
		task, _ := w.behindProxy(&ahead, lastOne)
		_, err := task.Save(w.Context(), with(2, 20<<10), checkpoint.SaveOptions{})
		w.wantApart("save", err)
		w.wantHistory("2")
		w.wantReadable()
		w.wantObjects(manifests, 2)
	})
}

// A proxy may be added in front of a store while an owner runs, or its clock may go
// wrong. The owner's own clock makes it list, for one request.
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

// A clock that goes wrong slowly is noticed too.
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

// A reply is compared with the last listing, and not with the reply before: two steps of
// the clock, each of them small enough, are one that is not.
func TestOwnerMeetsAClockThatDriftsBetweenListings(t *testing.T) {
	inWorld(t, func(w *world) {
		var ahead time.Duration
		task, _ := w.behindProxy(&ahead, keepAll)
		o := claim(w, task)
		time.Sleep(31 * time.Minute) // so long that the owner lists
		ahead = 4 * time.Minute
		commit(w, o, at(1))
		time.Sleep(time.Minute)
		ahead = 8 * time.Minute
		_, err := o.Commit(w.Context(), at(2))
		w.wantApart("commit", err)
	})
}

// While the clocks agree there is no additional request. A suspended machine costs
// one request.
func TestClocksThatAgreeCostNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		ahead := 4 * time.Minute
		task, job := w.behindProxy(&ahead, lastOne)
		o := claim(w, task)
		commit(w, o, at(0))
		synctest.Wait()
		before := job.Stats()
		for n := range 50 {
			time.Sleep(29 * time.Minute)
			commit(w, o, at(n+1))
			synctest.Wait()
		}
		// With every ninth commit, the owner looks whether its manifests are all there.
		if lists := job.Stats().List.Calls - before.List.Calls; lists > 50/9 {
			t.Errorf("50 commits took %d listings", lists)
		}
	})
}

// A save tells the time of its checkpoint as everyone else sees it, in a listing.
// Replies may tell it less precisely: those of S3 do so to the second.
func TestSaveTellsTheListedTime(t *testing.T) {
	inWorld(t, func(w *world) {
		ahead := -300 * time.Millisecond
		task, _ := w.behindProxy(&ahead, keepAll)
		c, err := task.Save(w.Context(), with(1, 100<<10), checkpoint.SaveOptions{})
		if err != nil {
			t.Fatal(err)
		}
		list, err := task.List(w.Context())
		if err != nil || len(list) != 1 || !list[0].Time.Equal(c.Time) {
			t.Errorf("saved at %v; listed: %+v, %v", c.Time, list, err)
		}
	})
}
