package runner

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// What steps have done is committed in the interval, and restored by the next
// owner, offsets and state together.
func TestCommitAndRestore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{})
		task, h := w.own(r, "orders/7")
		if h.restored.Checkpoint != nil || !h.restored.IsNew("") {
			t.Error("a new task has a checkpoint")
		}
		for range 3 {
			h.mustAdd(task)
		}
		time.Sleep(DefaultInterval)
		if _, n := w.latest("orders/7"); n != 3 {
			t.Errorf("%d was committed after an interval; expected 3", n)
		}
		h.mustAdd(task)
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		wantCause(t, task, ErrReleased)
		task, h = w.own(r, "orders/7")
		if h.n != 4 || h.restored.IsNew("") {
			t.Errorf("%d was restored; expected 4", h.n)
		}
		if start, err := h.restored.Start("in"); err != nil || start != (Start{At: Checkpointed, Offset: "4"}) {
			t.Errorf("it starts at %+v, %v", start, err)
		}
		h.mustAdd(task)
		c, err := task.Commit(t.Context())
		if err != nil || c.Offsets["in"] != "5" {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

// A step that fails or panics keeps no offset, and the gate is usable.
func TestStepThatFails(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		h.mustAdd(task)
		fail := func(p *Position) error {
			p.Advance("in", "9")
			return errHost
		}
		if err := task.Step(t.Context(), fail); !errors.Is(err, errHost) {
			t.Errorf("%v", err)
		}
		c, err := task.Commit(within(t, time.Minute))
		if err != nil || c.Offsets["in"] != "1" {
			t.Fatalf("%+v, %v", c, err)
		}
		h.mustAdd(task)
	})
}

// A step that panics, or ends its goroutine, could not say whether the state is half
// changed. It counts as if it were, and the gate does not wait for it.
func TestStepThatDoesNotReturn(t *testing.T) {
	for name, end := range map[string]func(){
		"panic":  func() { panic("oh") },
		"goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
				h.mustAdd(task)
				if _, err := task.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				gone := make(chan any)
				go func() {
					defer func() { gone <- recover() }()
					_ = task.Step(context.Background(), func(p *Position) error {
						p.Advance("in", "10")
						h.n = 10
						end()
						return nil
					})
				}()
				if v := <-gone; (v != nil) != (name == "panic") {
					t.Errorf("the host recovers %v", v)
				}
				if err := task.Release(within(t, time.Minute)); !errors.Is(err, ErrHalfDone) {
					t.Error(err)
				}
				wantCause(t, task, ErrHalfDone)
				if _, n := w.latest("a"); n != 1 || !h.closed {
					t.Errorf("%d is committed, closed: %v", n, h.closed)
				}
			})
		})
	}
}

// A step that says that the state is half changed ends the task before anything
// is committed, also when a cut waits for it already.
func TestStepThatIsHalfDone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		h.mustAdd(task)
		began, committed := make(chan struct{}), make(chan error)
		go func() {
			<-began
			_, err := task.Commit(t.Context())
			committed <- err
		}()
		err := task.Step(t.Context(), func(p *Position) error {
			close(began)
			<-p.Context().Done() // the cut waits
			h.n = 77
			return ErrHalfDone
		})
		if !errors.Is(err, ErrHalfDone) {
			t.Error(err)
		}
		if err := <-committed; !errors.Is(err, ErrHalfDone) {
			t.Errorf("a commit of half a step: %v", err)
		}
		<-task.Done()
		wantCause(t, task, ErrHalfDone)
		if seq, _ := w.latest("a"); seq != 0 {
			t.Error("it was committed")
		}
	})
}

// The same when the task is being released.
func TestStepThatIsHalfDoneAtTheEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		go func() {
			_ = task.Step(context.Background(), func(p *Position) error {
				h.n = 77
				<-p.Context().Done()
				return ErrHalfDone
			})
		}()
		synctest.Wait()
		if err := task.Release(within(t, time.Minute)); !errors.Is(err, ErrHalfDone) {
			t.Error(err)
		}
		if seq, _ := w.latest("a"); seq != 0 {
			t.Error("it was committed")
		}
	})
}

// No step runs during a cut, and no cut during a step. The loop is paused for the
// cut, and not for the upload.
func TestGateKeepsStepsAndCutsApart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		job := w.job(faulty(&store))
		task, h := w.own(w.runner(job, Options{Interval: Manual}), "a")
		h.cutTakes(20 * time.Millisecond)
		inStep := false
		h.failWith(func() error {
			if inStep {
				t.Error("a cut was taken while a step runs")
			}
			return nil
		})
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 5 * time.Second})
		committed := make(chan struct{})
		var longest time.Duration
		go func() {
			defer close(committed)
			time.Sleep(3 * time.Millisecond) // in the middle of a step
			if _, err := task.Commit(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		steps := 0
		for done := false; !done; steps++ {
			began := time.Now()
			err := task.Step(t.Context(), func(*Position) error {
				longest = max(longest, time.Since(began))
				inStep = true
				time.Sleep(5 * time.Millisecond)
				inStep = false
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-committed:
				done = true
			default:
			}
		}
		if longest != h.cutFor {
			t.Errorf("the loop was paused for %v; expected the %v of the cut", longest, h.cutFor)
		}
		if steps < 900 {
			t.Errorf("%d steps beside an upload of 5 s; expected about 1000", steps)
		}
	})
}

// A step can ask for a commit, and learns that a cut waits for it.
func TestStepAsksForACommit(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		err := task.Step(t.Context(), func(p *Position) error {
			h.n = 5
			p.Advance("in", "5")
			if at, ok := p.Offset("in"); at != "5" || !ok {
				t.Errorf("the step does not see its own offset: %q", at)
			}
			p.Commit()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, n := w.latest("a"); n != 5 {
			t.Errorf("%d is committed", n)
		}
		go func() {
			time.Sleep(time.Second)
			_, _ = task.Commit(context.Background())
		}()
		began := time.Now()
		err = task.Step(t.Context(), func(p *Position) error {
			<-p.Context().Done()
			if cause := context.Cause(p.Context()); !errors.Is(cause, errCutWaits) {
				t.Error(cause)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		wantAfter(t, began, time.Second, time.Second)
	})
}

// A request for a commit is served by a cut that is taken after it.
func TestRequestGetsALaterCut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		job := w.job(faulty(&store))
		task, h := w.own(w.runner(job, Options{Interval: Manual}), "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", On: 1, For: 5 * time.Second})
		go func() { _, _ = task.Commit(context.Background()) }()
		time.Sleep(time.Second) // its upload is under way
		h.mustAdd(task)
		c, err := task.Commit(t.Context())
		if err != nil || c.Offsets["in"] != "1" {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

// Requests that come while one is waiting share a commit, and one that comes during
// a commit makes one more.
func TestTriggersAreCoalesced(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		job := w.job(faulty(&store))
		task, h := w.own(w.runner(job, Options{Interval: Manual}), "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 5 * time.Second})
		errs := make(chan error, 10)
		for range 10 {
			go func() {
				_, err := task.Commit(context.Background())
				errs <- err
			}()
			time.Sleep(time.Second / 2)
		}
		for range 10 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if cuts, inUse := h.counted(); cuts != 2 || inUse != 0 {
			t.Errorf("%d cuts for 10 requests during one upload, %d in use; expected 2 and 0", cuts, inUse)
		}
	})
}

// However it is triggered, a task makes one commit at a time.
func TestOneCommitAtATime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		job := w.job(faulty(&store))
		task, h := w.own(w.runner(job, Options{Interval: time.Second}), "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 2500 * time.Millisecond})
		h.failWith(func() error {
			if _, inUse := h.counted(); inUse > 0 {
				t.Error("a cut was taken before the one before was committed")
			}
			return nil
		})
		for range 50 {
			go func() { _, _ = task.Commit(context.Background()) }()
			time.Sleep(700 * time.Millisecond)
		}
		if cuts, _ := h.counted(); cuts < 10 || cuts > 15 {
			t.Errorf("%d commits of 2.5 s in 35 s", cuts)
		}
		time.Sleep(time.Minute)
	})
}

// A panic in a cut is a failure like others: nothing is lost, and the next commit
// has it all.
func TestPanicInACut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		h.mustAdd(task)
		h.failWith(func() error { panic("oh") })
		_, err := task.Commit(within(t, time.Minute))
		p := (*PanicError)(nil)
		if !errors.As(err, &p) || p.Value != "oh" || len(p.Stack) == 0 {
			t.Fatalf("%v", err)
		}
		h.failWith(nil)
		h.mustAdd(task)
		if _, err := task.Commit(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, n := w.latest("a"); n != 2 {
			t.Errorf("%d is committed", n)
		}
	})
}

// Being fenced is final, stops processing at once, and is reported as such.
func TestFencedIsFinal(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		failed := 0
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a", func(s *Spec) {
			s.Hooks.Failed = func(_ context.Context, err error) {
				failed++
				if !errors.Is(err, checkpoint.ErrFenced) {
					t.Error(err)
				}
			}
		})
		h.mustAdd(task)
		other, h2 := w.own(w.runner(w.job(), Options{Interval: Manual}), "a", func(s *Spec) { s.Dir = t.TempDir() })
		if _, err := task.Commit(t.Context()); !errors.Is(err, checkpoint.ErrFenced) {
			t.Error(err)
		}
		wantCause(t, task, checkpoint.ErrFenced)
		if err := h.add(t.Context(), task); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("a step of a fenced task: %v", err)
		}
		if _, err := task.Commit(t.Context()); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("a commit of a fenced task: %v", err)
		}
		<-task.Done()
		if err := task.Release(t.Context()); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("the release of a fenced task: %v", err)
		}
		if cuts, inUse := h.counted(); cuts != 1 || inUse != 0 || !h.closed || failed != 1 {
			t.Errorf("%d cuts, %d in use, closed: %v, %d failures", cuts, inUse, h.closed, failed)
		}
		h2.mustAdd(other)
		if _, err := other.Commit(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// That others have removed the task's manifests is final, whatever failures are tolerated.
func TestLostIsFinal(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual, MaxFailures: 100}), "a")
		h.mustAdd(task)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		store := w.bucket.Open()
		for o, err := range store.List(t.Context(), "", "") {
			if err = errors.Join(err, store.Delete(t.Context(), o.Key)); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		for n := 0; n < 100 && err == nil; n++ {
			time.Sleep(2 * time.Minute)
			h.mustAdd(task)
			_, err = task.Commit(t.Context())
		}
		if !errors.Is(err, checkpoint.ErrLost) {
			t.Fatal(err)
		}
		wantCause(t, task, checkpoint.ErrLost)
		<-task.Done()
	})
}

// A task that was fenced while it was restored is not opened.
func TestFencedDuringRestore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		task, h := w.own(r, "a")
		h.mustAdd(task)
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		claimed := false
		_, h, err := w.tryOwn(r, "a", func(s *Spec) {
			s.Progress = func(string, checkpoint.Progress) {
				if !claimed {
					claimed = true
					w.own(w.runner(w.job(), Options{Interval: Manual}), "a", func(s *Spec) { s.Dir = t.TempDir() })
				}
			}
		})
		if !errors.Is(err, checkpoint.ErrFenced) || h.restored != nil {
			t.Errorf("%v, opened: %v", err, h.restored != nil)
		}
	})
}

// Hooks: before a cut the position may be moved, after a commit its offsets are
// durable.
func TestHooks(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var acknowledged []string
		var fail error
		var failures []error
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a", func(s *Spec) {
			s.Hooks = Hooks{
				Before: func(_ context.Context, p *Position) error {
					at, _ := p.Offset("in")
					p.Advance("flushed", at)
					return fail
				},
				After: func(_ context.Context, c *checkpoint.Checkpoint) error {
					if seq, _ := w.latest("a"); seq != c.Seq {
						t.Errorf("acknowledged %d, and %d is the newest", c.Seq, seq)
					}
					acknowledged = append(acknowledged, c.Offsets["flushed"])
					return errHost // the checkpoint stands
				},
				Failed: func(_ context.Context, err error) { failures = append(failures, err) },
			}
		})
		for i := range 3 {
			h.mustAdd(task)
			fail = nil
			if i == 1 {
				fail = errHost
			}
			if _, err := task.Commit(t.Context()); !errors.Is(err, fail) {
				t.Errorf("commit %d: %v", i, err)
			}
		}
		if len(acknowledged) != 2 || acknowledged[0] != "1" || acknowledged[1] != "3" {
			t.Errorf("acknowledged: %v", acknowledged)
		}
		if len(failures) != 1 || !errors.Is(failures[0], errHost) {
			t.Errorf("failures: %v", failures)
		}
		if cuts, _ := h.counted(); cuts != 2 {
			t.Errorf("%d cuts; expected none after a hook that failed", cuts)
		}
	})
}

// A hook that fails moves no offsets.
func TestHookThatFailsMovesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var seen []string
		task, _ := w.own(w.runner(w.job(), Options{Interval: Manual}), "a", func(s *Spec) {
			s.Hooks.Before = func(_ context.Context, p *Position) error {
				at, _ := p.Offset("flushed")
				if seen = append(seen, at); len(seen) == 1 {
					p.Advance("flushed", "too far")
					return errHost
				}
				return nil
			}
		})
		if _, err := task.Commit(t.Context()); !errors.Is(err, errHost) {
			t.Error(err)
		}
		c, err := task.Commit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, moved := c.Offsets["flushed"]; moved || len(seen) != 2 || seen[1] != "" {
			t.Errorf("%v; the second hook has seen %q", c.Offsets, seen)
		}
	})
}

// A panic in any hook leaves the task as it is.
func TestPanicInHooks(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a", func(s *Spec) {
			s.Hooks.After = func(context.Context, *checkpoint.Checkpoint) error { panic("after") }
			s.Hooks.Failed = func(context.Context, error) { panic("failed") }
		})
		h.failWith(func() error { return errHost })
		if _, err := task.Commit(t.Context()); !errors.Is(err, errHost) {
			t.Error(err)
		}
		h.failWith(nil)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		h.mustAdd(task)
	})
}

// Tasks come and go while others run.
func TestOwnAndReleaseWhileOthersRun(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: time.Second})
		stay, h := w.own(r, "stay")
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for h.add(context.Background(), stay) == nil {
				time.Sleep(10 * time.Millisecond)
			}
		}()
		for i := range 20 {
			name := strconv.Itoa(i % 5)
			task, h := w.own(r, name)
			before := h.n
			h.mustAdd(task)
			time.Sleep(300 * time.Millisecond)
			if i%4 == 3 {
				h.mustAdd(task)
				if err := task.Abandon(within(t, time.Minute)); err != nil {
					t.Error(err)
				}
				wantCause(t, task, ErrAbandoned)
				continue
			}
			if err := task.Release(within(t, time.Minute)); err != nil {
				t.Error(err)
			}
			if _, n := w.latest(name); n != before+1 {
				t.Errorf("%s: %d is committed; expected %d", name, n, before+1)
			}
		}
		if _, _, err := w.tryOwn(r, "stay"); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("a task was owned twice: %v", err)
		}
		if err := r.Drain(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		<-stopped
		if _, n := w.latest("stay"); n != h.n {
			t.Errorf("%d is committed of %d", n, h.n)
		}
		if _, _, err := w.tryOwn(r, "late"); !errors.Is(err, ErrDrained) {
			t.Errorf("a task was owned after the drain: %v", err)
		}
	})
}

// CommitAll commits every task.
func TestCommitAll(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		var hosts []*host
		for i := range 20 {
			task, h := w.own(r, strconv.Itoa(i))
			h.mustAdd(task)
			hosts = append(hosts, h)
		}
		if err := r.CommitAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		hosts[7].failWith(func() error { return errHost })
		if err := r.CommitAll(t.Context()); !errors.Is(err, errHost) {
			t.Error(err)
		}
		for i := range 20 {
			if _, n := w.latest(strconv.Itoa(i)); n != 1 {
				t.Errorf("task %d: %d", i, n)
			}
		}
	})
}

// What steps do while a cut is uploaded is not in it, neither state nor offsets.
func TestOffsetsBelongToTheCut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for h.add(context.Background(), task) == nil {
				time.Sleep(100 * time.Microsecond)
			}
		}()
		for range 10 {
			time.Sleep(5 * time.Millisecond)
			if _, err := task.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.latest("a") // compares them
		}
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		<-stopped
	})
}
