package runner

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// A last commit that fails is tried again, under the rules of every other one.
func TestLastCommitIsTriedAgain(t *testing.T) {
	for name, test := range map[string]struct {
		fails       int
		within      time.Duration
		want        error
		least, most time.Duration
	}{
		"three times":    {3, time.Minute, nil, 7 * time.Second, 8 * time.Second},
		"too often":      {100, time.Hour, errHost, 31 * time.Second, 32 * time.Second},
		"no time for it": {100, 5 * time.Second, context.DeadlineExceeded, 5 * time.Second, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
				h.mustAdd(task)
				fails := test.fails
				h.failWith(func() error {
					if fails--; fails >= 0 {
						return errHost
					}
					return nil
				})
				began := time.Now()
				err := task.Release(within(t, test.within))
				if !errors.Is(err, test.want) {
					t.Errorf("%v; expected %v", err, test.want)
				}
				if (err != nil) != errors.Is(err, errHost) {
					t.Errorf("%v; it does not say what failed", err)
				}
				wantAfter(t, began, test.least, test.most)
				if _, n := w.latest("a"); (n == 1) != (test.want == nil) {
					t.Errorf("%d is committed", n)
				}
			})
		})
	}
}

// The last commit of a task that was fenced is not tried again.
func TestLastCommitOfAFencedTask(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
		h.mustAdd(task)
		w.own(w.runner(w.job(), Options{Interval: Manual}), "a", func(s *Spec) { s.Dir = t.TempDir() })
		began := time.Now()
		if err := task.Release(within(t, time.Minute)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Error(err)
		}
		wantAfter(t, began, 0, 0)
	})
}

// A savepoint that cannot have its name does not cost the last commit: whoever asked is
// told, and what was done is committed without the name.
func TestSavepointWithABadNameAtTheEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		task, h := w.own(w.runner(w.job(faulty(&store)), Options{Interval: Manual, MaxFailures: -1}), "a")
		if _, err := task.Savepoint(t.Context(), "x", 0); err != nil {
			t.Fatal(err)
		}
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 5 * time.Second})
		go func() { _, _ = task.Commit(context.Background()) }()
		time.Sleep(time.Second)
		h.mustAdd(task)
		told := make(chan error, 2)
		for _, name := range []string{"x", "7"} {
			go func() {
				_, err := task.Savepoint(context.Background(), name, 0)
				told <- err
			}()
			synctest.Wait()
		}
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-told; err == nil || errors.Is(err, ErrReleased) {
				t.Errorf("whoever asked for the name is told %v", err)
			}
		}
		if _, n := w.latest("a"); n != 1 {
			t.Errorf("%d is committed", n)
		}
	})
}

// A commit that was in doubt and was made, after all, is no failure, and what it has stored
// is counted.
func TestDoubtThatWasCommittedIsNoFailure(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		reader := sdkmetric.NewManualReader()
		task, h := w.own(w.runner(w.job(faulty(&store)), Options{
			Interval: Manual, CommitTimeout: 5 * time.Second, MaxFailures: 1, MaxTimeouts: 1,
			MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
		}), "a")
		for range 3 {
			h.mustAdd(task)
			before := metrics(t, reader)["holdfast.commit.stored"]
			store.Arm(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1}, dead)
			if _, err := task.Commit(t.Context()); !errors.Is(err, checkpoint.ErrUnknown) {
				t.Fatal(err)
			}
			store.Heal()
			h.failWith(func() error { return errHost })
			if _, err := task.Commit(t.Context()); !errors.Is(err, errHost) {
				t.Fatal(err)
			}
			h.failWith(nil)
			if got := metrics(t, reader)["holdfast.commit.stored"]; got <= before {
				t.Errorf("%v bytes are stored, after %v", got, before)
			}
		}
		if task.Context().Err() != nil {
			t.Errorf("the task has ended: %v", context.Cause(task.Context()))
		}
	})
}

// That a task has ended is one event, with the cause: an error unless somebody asked for it.
func TestEndIsLogged(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(task *Task) error
		want string
	}{
		"released": {func(task *Task) error { return task.Release(context.Background()) }, "level=INFO msg=ended task=a cause=\"the task was released\""},
		"half done": {func(task *Task) error {
			_ = task.Step(context.Background(), func(*Position) error { return ErrHalfDone })
			<-task.Done()
			return nil
		}, "level=ERROR msg=ended task=a cause=\"the state may be half changed\""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var log strings.Builder
				task, _ := w.own(w.runner(w.job(), Options{Interval: Manual, Logger: slog.New(slog.NewTextHandler(&log, nil))}), "a")
				if err := test.end(task); err != nil {
					t.Error(err)
				}
				if strings.Count(log.String(), test.want) != 1 {
					t.Errorf("the log lacks %s:\n%s", test.want, &log)
				}
			})
		})
	}
}
