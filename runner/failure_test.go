package runner

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// dead is a store that answers nothing but errors.
var dead = faultstore.Fault{Kind: faultstore.FailBefore}

// process adds to h, a hundred times a second, until the task ends. It returns how
// long each of its steps had to wait.
func process(task *Task, h *host) (waits func() []time.Duration) {
	var list []time.Duration
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			began := time.Now()
			if h.add(context.Background(), task) != nil {
				return
			}
			list = append(list, time.Since(began))
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return func() []time.Duration {
		<-done
		return list
	}
}

// After an error that does not fence, processing goes on, the next trigger takes a
// new cut, and that heals by itself.
func TestProcessingGoesOnAfterAFailure(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: 10 * time.Second})
		task, h := w.own(r, "a")
		waits := process(task, h)
		fails := 3
		h.failWith(func() error {
			if fails--; fails >= 0 {
				return errHost
			}
			return nil
		})
		time.Sleep(45 * time.Second)
		if seq, n := w.latest("a"); seq == 0 || n < 3000 {
			t.Errorf("after three failures %d is committed", n)
		}
		if err := r.Drain(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		for _, d := range waits() {
			if d > 0 {
				t.Fatalf("a step waited for %v", d)
			}
		}
	})
}

// Past the maximum delay input is held back, and it goes on when the store is back.
func TestHeldBackPastMaxDelay(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: 10 * time.Second, MaxDelay: 30 * time.Second, MaxFailures: 100})
		task, h := w.own(r, "a")
		waits := process(task, h)
		store.Arm(dead)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		held := h.sum()
		if held < 3000 || held > 4100 {
			t.Errorf("%d steps before they were held back; expected 30 s to 40 s of them, 100 a second", held)
		}
		if seq, _ := w.latest("a"); seq != 0 {
			t.Errorf("checkpoint %d is committed to a dead store", seq)
		}
		store.Heal()
		time.Sleep(90 * time.Second)
		if _, n := w.latest("a"); n < held {
			t.Errorf("%d is committed of %d after the store came back", n, held)
		}
		if h.sum() < held+1000 {
			t.Errorf("%d more steps after the store came back", h.sum()-held)
		}
		if err := r.Drain(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		long := 0
		for _, d := range waits() {
			if d > 0 {
				long++
			}
		}
		if long != 1 {
			t.Errorf("%d steps waited; expected the one that was held back", long)
		}
	})
}

// A commit that takes longer than the maximum delay holds steps back until it is
// through, and lets them run for as long before the next.
func TestSlowStoreGivesBackPressure(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: time.Second, MaxDelay: 10 * time.Second})
		task, h := w.own(r, "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 15 * time.Second})
		waits := process(task, h)
		time.Sleep(3 * time.Minute)
		store.Disarm()
		_ = r.Drain(within(t, time.Minute))
		var held time.Duration
		for _, d := range waits() {
			held += d
		}
		if held < 40*time.Second || held > 70*time.Second {
			t.Errorf("held back for %v of 3 min; expected about 5 s of each 15 s", held)
		}
		if cuts, _ := h.counted(); cuts < 11 || cuts > 14 {
			t.Errorf("%d commits of 15 s in 3 min", cuts)
		}
	})
}

// The task fails past a number of failures in a row; a success starts the count
// anew.
func TestTooManyFailures(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual, MaxFailures: 2}), "a")
		fail := errHost
		h.failWith(func() error { return fail })
		for i, succeeds := range []bool{false, false, true, false, false, true, false, false} {
			fail = errHost
			if succeeds {
				fail = nil
			}
			h.mustAdd(task)
			if _, err := task.Commit(t.Context()); !errors.Is(err, fail) {
				t.Fatalf("commit %d: %v", i, err)
			}
		}
		_, err := task.Commit(t.Context())
		if !errors.Is(err, errHost) {
			t.Error(err)
		}
		<-task.Done()
		wantCause(t, task, ErrTooManyFailures)
		wantCause(t, task, errHost)
		if _, n := w.latest("a"); n != 6 {
			t.Errorf("%d is committed; expected the last success, 6", n)
		}
		if cuts, _ := h.counted(); cuts != 9 || !h.closed {
			t.Errorf("%d cuts, closed: %v; expected no last commit of a task that failed", cuts, h.closed)
		}
	})
}

// A negative number tolerates none.
func TestNoFailureIsTolerated(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{MaxFailures: -1}), "a")
		h.failWith(func() error { return errHost })
		time.Sleep(DefaultInterval)
		wantCause(t, task, ErrTooManyFailures)
	})
}

// Time-outs are counted apart from failures, and fail the task too.
func TestTooManyTimeouts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: Manual, CommitTimeout: 20 * time.Second, MaxFailures: -1, MaxTimeouts: 1})
		task, h := w.own(r, "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: time.Hour})
		began := time.Now()
		for range 2 {
			if task.Context().Err() != nil {
				t.Fatal("the first time-out has ended the task")
			}
			if _, err := task.Commit(t.Context()); !errors.Is(err, errTimeout) {
				t.Error(err)
			}
		}
		wantAfter(t, began, 40*time.Second, 40*time.Second)
		<-task.Done()
		wantCause(t, task, ErrTooManyFailures)
		wantCause(t, task, errTimeout)
		if _, inUse := h.counted(); inUse != 0 {
			t.Errorf("%d cuts are in use", inUse)
		}
	})
}

// Steps are held back for a commit that was asked for as for any other.
func TestSlowCommitThatWasAskedForHoldsSteps(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		task, h := w.own(w.runner(w.job(faulty(&store)), Options{Interval: Manual, MaxDelay: 10 * time.Second}), "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: time.Minute})
		process(task, h)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if n := h.sum(); n < 900 || n > 1100 {
			t.Errorf("%d steps, 100 a second, before they were held back for the rest of a commit of 1 min; expected 10 s of them", n)
		}
	})
}

// A hook that takes long keeps no commit from being due: steps are held back.
func TestSlowHookHoldsSteps(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var calls atomic.Int32
		task, h := w.own(w.runner(w.job(), Options{Interval: 10 * time.Second, MaxDelay: 30 * time.Second}), "a", func(s *Spec) {
			s.Hooks.After = func(context.Context, *checkpoint.Checkpoint) error {
				if calls.Add(1) == 2 {
					time.Sleep(10 * time.Minute)
				}
				return nil
			}
		})
		process(task, h)
		for calls.Load() < 2 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		before := h.sum()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := h.sum() - before; n < 3400 || n > 4200 {
			t.Errorf("%d steps, 100 a second, while a hook took 5 min; expected 40 s of them", n)
		}
		time.Sleep(6 * time.Minute)
		if n := h.sum() - before; n < 5000 {
			t.Errorf("%d steps after the hook has ended", n)
		}
	})
}

// A hook after an attempt has a time of its own, and not the rest of the attempt's.
func TestHooksHaveATimeOfTheirOwn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		var took []time.Duration
		wait := func(ctx context.Context) error {
			began := time.Now()
			<-ctx.Done()
			took = append(took, time.Since(began))
			return context.Cause(ctx)
		}
		task, h := w.own(w.runner(w.job(faulty(&store)), Options{Interval: Manual, CommitTimeout: time.Minute}), "a", func(s *Spec) {
			s.Hooks.After = func(ctx context.Context, _ *checkpoint.Checkpoint) error { return wait(ctx) }
			s.Hooks.Failed = func(ctx context.Context, _ error) { _ = wait(ctx) }
		})
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 50 * time.Second})
		for range 2 {
			_, _ = task.Commit(t.Context())
			h.failWith(func() error { return errHost })
		}
		if len(took) != 2 || took[0] != time.Minute || took[1] != time.Minute {
			t.Errorf("the hooks had %v; expected a minute each", took)
		}
	})
}

// The longest time without a success counts while a hook runs, which learns of it.
func TestFailAfterInAHook(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, _ := w.own(w.runner(w.job(), Options{Interval: 10 * time.Second, FailAfter: 3 * time.Minute}), "a", func(s *Spec) {
			s.Hooks.After = func(ctx context.Context, _ *checkpoint.Checkpoint) error {
				<-ctx.Done()
				return context.Cause(ctx)
			}
		})
		began := time.Now()
		<-task.Done()
		wantAfter(t, began, 3*time.Minute, 3*time.Minute+30*time.Second)
		wantCause(t, task, ErrTooManyFailures)
	})
}

// The task fails past a longest time, also while an attempt is under way.
func TestFailAfter(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: Manual, FailAfter: 3 * time.Minute, MaxFailures: 100})
		task, _ := w.own(r, "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: time.Hour})
		began := time.Now()
		_, _ = task.Commit(t.Context())
		<-task.Done()
		wantAfter(t, began, 3*time.Minute, 3*time.Minute+closeTime)
		wantCause(t, task, ErrTooManyFailures)
		wantCause(t, task, errFailAfter)
	})
}

// The same with attempts that fail one after the other.
func TestFailAfterManyAttempts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{FailAfter: 10 * time.Minute, MaxFailures: 1000})
		task, h := w.own(r, "a")
		h.failWith(func() error { return errHost })
		began := time.Now()
		<-task.Done()
		wantAfter(t, began, 10*time.Minute, 11*time.Minute+maxRetry)
		wantCause(t, task, ErrTooManyFailures)
	})
}

// A commit whose outcome is unknown is settled before another cut is taken: it was
// made, and is acknowledged.
func TestDoubtIsSettledFirst(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		job := w.job(faulty(&store))
		var acknowledged []string
		task, h := w.own(w.runner(job, Options{Interval: Manual, CommitTimeout: 5 * time.Second}), "a", func(s *Spec) {
			s.Hooks.After = func(_ context.Context, c *checkpoint.Checkpoint) error {
				acknowledged = append(acknowledged, c.Offsets["in"])
				return nil
			}
		})
		h.mustAdd(task)
		store.Arm(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1}, dead)
		if _, err := task.Commit(t.Context()); !errors.Is(err, checkpoint.ErrUnknown) {
			t.Fatal(err)
		}
		if cuts, inUse := h.counted(); cuts != 1 || inUse != 1 || len(h.dones) != 0 {
			t.Errorf("%d cuts, %d in use, done: %v; expected the cut to stay until its commit is settled", cuts, inUse, h.dones)
		}
		h.mustAdd(task)
		if _, err := task.Commit(t.Context()); !errors.Is(err, checkpoint.ErrUnsettled) {
			t.Error(err)
		}
		if cuts, _ := h.counted(); cuts != 1 {
			t.Errorf("%d cuts; expected none before the first is settled", cuts)
		}
		store.Heal()
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if cuts, inUse := h.counted(); cuts != 2 || inUse != 0 || len(h.dones) != 2 || h.dones[0] != nil {
			t.Errorf("%d cuts, %d in use, done: %v", cuts, inUse, h.dones)
		}
		if len(acknowledged) != 2 || acknowledged[0] != "1" || acknowledged[1] != "2" {
			t.Errorf("acknowledged %v", acknowledged)
		}
	})
}

// A cut whose commit is in doubt when the task ends is told so.
func TestDoubtAtTheEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		job := w.job(faulty(&store))
		task, h := w.own(w.runner(job, Options{Interval: Manual, CommitTimeout: 5 * time.Second}), "a")
		h.mustAdd(task)
		store.Arm(faultstore.Fault{Kind: faultstore.Zombie, Verb: "create", On: 1}, dead)
		if _, err := task.Commit(t.Context()); !errors.Is(err, checkpoint.ErrUnknown) {
			t.Fatal(err)
		}
		if err := task.Abandon(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		if len(h.dones) != 1 || !errors.Is(h.dones[0], checkpoint.ErrUnknown) {
			t.Errorf("done: %v", h.dones)
		}
	})
}

// A doubt is settled by the release, within its time.
func TestDoubtIsSettledByRelease(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		job := w.job(faulty(&store))
		task, h := w.own(w.runner(job, Options{Interval: Manual, CommitTimeout: 5 * time.Second}), "a")
		h.mustAdd(task)
		store.Arm(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1}, dead)
		go func() {
			time.Sleep(8 * time.Second)
			store.Heal()
		}()
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Errorf("the last commit was made, after all: %v", err)
		}
		if len(h.dones) != 1 || h.dones[0] != nil {
			t.Errorf("done: %v", h.dones)
		}
		if _, n := w.latest("a"); n != 1 {
			t.Errorf("%d is committed", n)
		}
	})
}

// That an earlier commit was made, after all, does not make the last one.
func TestEarlierDoubtIsNotTheLastCommit(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		job := w.job(faulty(&store))
		task, h := w.own(w.runner(job, Options{Interval: Manual, CommitTimeout: 5 * time.Second}), "a")
		h.mustAdd(task)
		store.Arm(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1}, dead)
		if _, err := task.Commit(t.Context()); !errors.Is(err, checkpoint.ErrUnknown) {
			t.Fatal(err)
		}
		h.mustAdd(task)
		time.AfterFunc(8*time.Second, store.Heal)
		err := task.Release(within(t, time.Minute))
		if _, n := w.latest("a"); n != 2 || err != nil {
			t.Errorf("%d is committed of 2, and the release says %v", n, err)
		}
	})
}

// A commit in doubt that turns out not to be made is not acknowledged, and the next
// commit has it all.
func TestDoubtThatWasNotCommitted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var task *Task
		var outcome error
		acknowledged := 0
		doubtful := &Cut{Done: func(_ *checkpoint.Checkpoint, err error) { outcome = err }}
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a", func(s *Spec) {
			s.Hooks.Failed = func(context.Context, error) { // in the task's own goroutine
				task.doubt = &doubt{&attempt{cut: doubtful, give: func() {}}, checkpoint.ErrUnknown}
			}
			s.Hooks.After = func(context.Context, *checkpoint.Checkpoint) error {
				acknowledged++
				return nil
			}
		})
		h.mustAdd(task)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.mustAdd(task)
		h.failWith(func() error { return errHost })
		if _, err := task.Commit(t.Context()); !errors.Is(err, errHost) {
			t.Error(err)
		}
		h.failWith(nil)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if !errors.Is(outcome, checkpoint.ErrUnknown) || acknowledged != 2 {
			t.Errorf("the cut in doubt is told %v; %d acknowledged, expected 2", outcome, acknowledged)
		}
	})
}

// A doubt that cannot be settled is a failure, and no cut is taken.
func TestCommitThatStaysInDoubt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		job := w.job(faulty(&store))
		task, h := w.own(w.runner(job, Options{Interval: Manual, CommitTimeout: 5 * time.Second}), "a")
		h.mustAdd(task)
		store.Arm(dead)
		if _, err := task.Commit(t.Context()); !errors.Is(err, checkpoint.ErrUnknown) {
			t.Fatal(err)
		}
		store.Heal()
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", Err: backend.ErrPermission})
		if _, err := task.Commit(t.Context()); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("%v", err)
		}
		if cuts, inUse := h.counted(); cuts != 1 || inUse != 1 {
			t.Errorf("%d cuts, %d in use", cuts, inUse)
		}
	})
}

// Whoever asked for a commit that fails before there is a cut is told so at once.
func TestRequestOfACommitThatCameToNoCut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual, CommitTimeout: 20 * time.Second, MaxTimeouts: 10})
		task, h := w.own(r, "a")
		go func() {
			_ = task.Step(context.Background(), func(*Position) error {
				time.Sleep(5 * time.Minute)
				return nil
			})
		}()
		time.Sleep(time.Second)
		began := time.Now()
		if _, err := task.Commit(within(t, time.Hour)); !errors.Is(err, errTimeout) {
			t.Errorf("err = %v", err)
		}
		wantAfter(t, began, 20*time.Second, 20*time.Second)
		if err := h.add(within(t, time.Second), task); err != nil {
			t.Errorf("a step beside the long one: %v", err) // nothing waits any more
		}
		time.Sleep(10 * time.Minute)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Errorf("after the step: %v", err)
		}
	})
}

// A task with a step that takes long gives its turn to others, and commits when the
// step has ended.
func TestLongStepGivesItsTurnToOthers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual, Commits: 1})
		slow, _ := w.own(r, "slow")
		quick, h := w.own(r, "quick")
		go func() {
			_ = slow.Step(context.Background(), func(*Position) error {
				time.Sleep(5 * time.Minute)
				return nil
			})
		}()
		time.Sleep(time.Second)
		began := time.Now()
		go func() {
			if _, err := slow.Commit(context.Background()); err != nil {
				t.Error(err)
			}
			wantAfter(t, began, 299*time.Second, 299*time.Second)
		}()
		time.Sleep(time.Second)
		h.mustAdd(quick)
		if _, err := quick.Commit(within(t, 2*patience)); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute)
	})
}
