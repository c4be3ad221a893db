package runner

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// The order of shutting down: stop input, wait for the commit under way, cut,
// commit, close the state, release, unlock the directory.
func TestShutdownOrder(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var h *host
		var store *faultstore.Store
		job := w.job(faulty(&store), func(s backend.Store) backend.Store {
			return &tap{Store: s, after: func(verb, key string) {
				if h != nil && strings.Contains(key, "manifests") {
					h.note("manifest")
				}
			}}
		})
		r := w.runner(job, Options{Interval: Manual})
		task, opened := w.own(r, "a")
		h = opened
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 5 * time.Second})
		go func() { _, _ = task.Commit(context.Background()) }()
		time.Sleep(time.Second)
		go func() {
			_ = task.Step(context.Background(), func(*Position) error {
				<-task.Context().Done()
				h.note("input stops")
				time.Sleep(10 * time.Second) // longer than the commit under way
				h.note("step ends")
				return nil
			})
		}()
		synctest.Wait()
		if err := r.Drain(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		wantCause(t, task, ErrDrained)
		if err := h.add(context.Background(), task); !errors.Is(err, ErrDrained) {
			t.Errorf("a step after the drain: %v", err)
		}
		want := []string{"cut", "input stops", "manifest", "step ends", "cut", "manifest", "close", "manifest"}
		if !slices.Equal(h.log, want) {
			t.Errorf("got  %q\nwant %q", h.log, want)
		}
		dir, err := lockDir(task.spec.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := dir.unlock(); err != nil {
			t.Error(err)
		}
		if status := w.status("a"); status.Claimed {
			t.Error("the task is not released")
		}
	})
}

func (w *world) status(name string) checkpoint.Status {
	task, err := w.looker.Task(name)
	if err != nil {
		w.t.Fatal(err)
	}
	status, err := task.Status(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return status
}

// Drain ends within its context, whatever the store does; what it holds is closed
// soon after.
func TestDrainWithinItsTime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: Manual})
		var tasks []*Task
		var hosts []*host
		for i := range 10 {
			task, h := w.own(r, strconv.Itoa(i))
			h.mustAdd(task)
			tasks, hosts = append(tasks, task), append(hosts, h)
		}
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, For: time.Hour})
		began := time.Now()
		if err := r.Drain(within(t, 10*time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		wantAfter(t, began, 10*time.Second, 10*time.Second)
		for i, task := range tasks {
			<-task.Done()
			if !hosts[i].closed {
				t.Errorf("task %d is not closed", i)
			}
		}
		wantAfter(t, began, 10*time.Second, 10*time.Second+closeTime)
	})
}

// A step that does not end keeps its state open, because it uses it. Whoever ends the
// task does not wait longer for that than it wants to.
func TestStateStaysOpenForAStep(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		go func() {
			_ = task.Step(context.Background(), func(*Position) error {
				time.Sleep(time.Minute)
				if h.closed {
					t.Error("the state was closed under a step")
				}
				return nil
			})
		}()
		synctest.Wait()
		began := time.Now()
		if err := task.Release(within(t, 10*time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		wantAfter(t, began, 10*time.Second, 10*time.Second)
		<-task.Done()
		if !h.closed {
			t.Error("the state is open")
		}
	})
}

// A last commit is not made under a context that has ended: whoever passes one
// learns of it, and all is closed.
func TestDrainWithAnEndedContext(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		task, h := w.own(r, "a")
		h.mustAdd(task)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Drain(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		<-task.Done()
		if !h.closed {
			t.Error("the state is open")
		}
	})
}

// The context of Own may end: the task goes on, and its last commit is made.
func TestTaskOutlivesTheContextOfOwn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{})
		ctx, cancel := context.WithCancel(context.Background())
		h := &host{t: t}
		task, err := r.Own(ctx, "a", Spec{Dir: t.TempDir(), Open: h.open})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		h.mustAdd(task)
		if err := r.Drain(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		if _, n := w.latest("a"); n != 1 {
			t.Errorf("%d is committed", n)
		}
	})
}

// Abandon commits nothing, gives up the commit under way, and does not release what
// another has been assigned.
func TestAbandon(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		task, h := w.own(w.runner(w.job(faulty(&store)), Options{Interval: Manual}), "a")
		h.mustAdd(task)
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: time.Hour})
		committed := make(chan error)
		go func() {
			_, err := task.Commit(context.Background())
			committed <- err
		}()
		time.Sleep(time.Second)
		began := time.Now()
		if err := task.Abandon(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		wantAfter(t, began, 0, closeTime)
		if err := <-committed; err == nil {
			t.Error("the commit under way has no error")
		}
		wantCause(t, task, ErrAbandoned)
		if seq, _ := w.latest("a"); seq != 0 || !w.status("a").Claimed {
			t.Errorf("checkpoint %d was committed, or the task released", seq)
		}
		if cuts, inUse := h.counted(); cuts != 1 || inUse != 0 {
			t.Errorf("%d cuts, %d in use", cuts, inUse)
		}
	})
}

// Abandon also ends a Release that is waiting.
func TestAbandonEndsARelease(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		task, _ := w.own(w.runner(w.job(faulty(&store)), Options{Interval: Manual}), "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: time.Hour})
		released := make(chan error)
		go func() { released <- task.Release(context.Background()) }()
		time.Sleep(time.Second)
		if err := task.Abandon(within(t, 10*time.Second)); !errors.Is(err, ErrReleased) {
			t.Error(err)
		}
		if err := <-released; !errors.Is(err, ErrAbandoned) {
			t.Error(err)
		}
	})
}

// Whoever waits for a commit when the task ends is told.
func TestRequestsAtTheEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		task, _ := w.own(w.runner(w.job(faulty(&store)), Options{Interval: Manual}), "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 20 * time.Second})
		errs := make(chan error, 3)
		for range 3 {
			go func() {
				_, err := task.Commit(context.Background())
				errs <- err
			}()
			time.Sleep(time.Second)
		}
		if err := task.Abandon(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		for range 3 {
			if err := <-errs; !errors.Is(err, ErrAbandoned) {
				t.Error(err)
			}
		}
	})
}

// A drain ends an Own that is under way.
func TestDrainEndsAnOwn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{})
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, For: time.Hour})
		owned := make(chan error)
		go func() {
			_, _, err := w.tryOwn(r, "a")
			owned <- err
		}()
		time.Sleep(time.Second)
		if err := r.Drain(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		if err := <-owned; !errors.Is(err, ErrDrained) {
			t.Error(err)
		}
	})
}

// What fails in Own leaves nothing open or locked.
func TestOwnThatFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{})
		for name, open := range map[string]func(context.Context, *Restored) (Cutter, error){
			"an error": func(context.Context, *Restored) (Cutter, error) { return nil, errHost },
			"a panic":  func(context.Context, *Restored) (Cutter, error) { panic(errHost) },
		} {
			if _, _, err := w.tryOwn(r, "a", func(s *Spec) { s.Open = open }); !errors.Is(err, errHost) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, _, err := w.tryOwn(r, "a", func(s *Spec) {
			s.Open = func(context.Context, *Restored) (Cutter, error) { return nil, nil }
		}); !errors.Is(err, backend.ErrInvalid) {
			t.Error(err)
		}
		w.own(r, "a")
	})
}

// A task that was claimed and could not be opened is released.
func TestTaskThatIsNotOpenedIsReleased(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{})
		if _, _, err := w.tryOwn(r, "a", func(s *Spec) {
			s.Open = func(context.Context, *Restored) (Cutter, error) { return nil, errHost }
		}); !errors.Is(err, errHost) {
			t.Error(err)
		}
		if w.status("a").Claimed {
			t.Error("a task that could not be opened stays claimed")
		}
		owned := make(chan error)
		go func() {
			_, _, err := w.tryOwn(r, "b", func(s *Spec) {
				s.Open = func(ctx context.Context, _ *Restored) (Cutter, error) {
					<-ctx.Done()
					return nil, context.Cause(ctx)
				}
			})
			owned <- err
		}()
		synctest.Wait()
		if err := r.Drain(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		if err := <-owned; !errors.Is(err, ErrDrained) {
			t.Error(err)
		}
		if w.status("b").Claimed {
			t.Error("a task that was drained before it was open stays claimed")
		}
	})
}

// Whoever ends a task that is about to end the same way gets what became of it.
func TestReleaseDuringADrain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: Manual})
		task, h := w.own(r, "a")
		h.mustAdd(task)
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 5 * time.Second})
		released := make(chan error)
		go func() { released <- task.Release(within(t, time.Minute)) }()
		synctest.Wait()
		if err := r.Drain(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		if err := <-released; err != nil {
			t.Error(err)
		}
	})
}

// Steps that are held back are let go when the task ends, and so is one that waits
// for input.
func TestStepsThatWaitEndWithTheTask(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		task, h := w.own(w.runner(w.job(faulty(&store)), Options{Interval: time.Second, MaxDelay: time.Second}), "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: time.Hour})
		time.Sleep(10 * time.Second)
		held := make(chan error)
		go func() { held <- h.add(context.Background(), task) }()
		synctest.Wait()
		began := time.Now()
		go func() { _ = task.Abandon(context.Background()) }()
		if err := <-held; !errors.Is(err, ErrAbandoned) {
			t.Error(err)
		}
		wantAfter(t, began, 0, 0)
		<-task.Done()
	})
	inWorld(t, func(t *testing.T, w *world) {
		task, _ := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		waits := make(chan error)
		go func() {
			waits <- task.Step(context.Background(), func(p *Position) error {
				<-p.Context().Done()
				return context.Cause(p.Context())
			})
		}()
		synctest.Wait()
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		if err := <-waits; !errors.Is(err, ErrReleased) && !errors.Is(err, errCutWaits) {
			t.Error(err)
		}
	})
}

// A step whose own context ends while it is held back ends with that.
func TestHeldStepWithAContextThatEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		task, h := w.own(w.runner(w.job(faulty(&store)), Options{Interval: time.Second, MaxDelay: time.Second}), "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: time.Hour})
		time.Sleep(10 * time.Second)
		began := time.Now()
		if err := h.add(within(t, 5*time.Second), task); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		wantAfter(t, began, 5*time.Second, 5*time.Second)
	})
}
