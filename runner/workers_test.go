package runner

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// Ended may start and stop tasks. This needs a clock that does not jump: a bubble would
// wait for whoever waits for a lock.
func TestEndedMayStartAndStopTasks(t *testing.T) {
	w := &world{t: t, bucket: mem.NewBucket(time.Now), dir: t.TempDir()}
	as := &adders{t: t, edit: func(task string, a *adder) {
		if task == "bad" {
			a.hook = func() error { return errHost }
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opts := w.runOptions()
	var workers *Workers
	opts.Assign = func(ctx context.Context, w *Workers) error {
		workers = w
		if err := errors.Join(w.Start(ctx, "good"), w.Start(ctx, "bad")); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	opts.Ended = func(string, error) error {
		defer cancel()
		return errors.Join(workers.Start(ctx, "next"), workers.Stop(ctx, "good"), workers.Lost(ctx, "bad"))
	}
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, opts, as.open) }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Run hangs")
	}
	if as.all["next"] == nil || !as.all["next"].closed {
		t.Error("the task that Ended has started did not run, or is open")
	}
}

// Run does not return before a start has ended that its Assign has left behind.
func TestRunWaitsForStarts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		opened := false
		opts := w.runOptions()
		opts.Assign = func(ctx context.Context, workers *Workers) error {
			started := make(chan struct{})
			go func() {
				close(started)
				_ = workers.Start(ctx, "a")
			}()
			<-started
			<-ctx.Done()
			return ctx.Err()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := Run(ctx, opts, func(context.Context, string, *Restored) (Worker, error) {
			time.Sleep(10 * time.Minute)
			opened = true
			return nil, errHost
		})
		if !opened {
			t.Errorf("Run has returned (%v) before the start had ended", err)
		}
	})
}

// What Stop and Lost end may still be starting: it gives up, and does not run later.
func TestTaskIsTakenAwayWhileItStarts(t *testing.T) {
	for name, test := range map[string]struct {
		end   func(w *Workers, ctx context.Context) error
		want  error
		fault faultstore.Fault
	}{
		"stopped": {func(w *Workers, ctx context.Context) error { return w.Stop(ctx, "a") }, ErrReleased,
			faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 10 * time.Second}},
		"lost": {func(w *Workers, ctx context.Context) error { return w.Lost(ctx, "a") }, ErrAbandoned,
			faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 10 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var store *faultstore.Store
				as := &adders{t: t}
				opts := w.runOptions()
				opts.Job = w.job(faulty(&store))
				opts.Assign = func(ctx context.Context, workers *Workers) error {
					store.Arm(test.fault)
					started := make(chan error, 1)
					go func() { started <- workers.Start(ctx, "a") }()
					time.Sleep(time.Second)
					began := time.Now()
					if err := test.end(workers, ctx); err != nil {
						t.Error(err)
					}
					wantAfter(t, began, 0, time.Second)
					if err := <-started; !errors.Is(err, test.want) {
						t.Errorf("Start: %v; expected %v", err, test.want)
					}
					time.Sleep(time.Minute)
					store.Disarm()
					if as.all["a"] != nil {
						t.Error("it works on a task that was taken away")
					}
					return workers.Start(ctx, "a") // it may come back
				}
				if err := Run(t.Context(), opts, as.open); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Two starts of one task at once are an error of the second.
func TestTaskIsStartedTwice(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		opts := w.runOptions()
		opts.Job = w.job(faulty(&store))
		opts.Assign = func(ctx context.Context, workers *Workers) error {
			store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: time.Second})
			started := make(chan error, 1)
			go func() { started <- workers.Start(ctx, "a") }()
			synctest.Wait()
			if err := workers.Start(ctx, "a"); err == nil {
				t.Error("the second start has no error")
			}
			return <-started
		}
		if err := Run(t.Context(), opts, (&adders{t: t}).open); err != nil {
			t.Error(err)
		}
	})
}

// Run waits for a Process that does not return, and says for which task.
func TestRunSaysWhatItWaitsFor(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var log strings.Builder
		opts := w.runOptions("deaf", "good")
		opts.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		open := func(_ context.Context, task string, _ *Restored) (Worker, error) {
			if task == "good" {
				return idle{}, nil
			}
			return workerFunc(func(context.Context) error { time.Sleep(5 * time.Minute); return nil }), nil
		}
		began := time.Now()
		if err := Run(within(t, time.Second), opts, open); err == nil {
			t.Error("the last commit is lost without an error")
		}
		wantAfter(t, began, 5*time.Minute, 5*time.Minute+closeTime)
		lines := slices.DeleteFunc(strings.Split(log.String(), "\n"), func(line string) bool { return !strings.Contains(line, "still at work") })
		if len(lines) != 1 || !strings.Contains(lines[0], "task=deaf") {
			t.Errorf("the log: %s", &log)
		}
	})
}

// What Close returns is told when a task has ended by itself.
func TestCloseFailsAfterProcess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		errClose := errors.New("a file is not closed")
		opts := w.runOptions("a")
		var told error
		opts.Ended = func(_ string, err error) error {
			told = err
			return nil
		}
		fails := workerFunc(func(context.Context) error { return errHost })
		if err := Run(t.Context(), opts, func(context.Context, string, *Restored) (Worker, error) {
			return &badCloser{fails, errClose}, nil
		}); err != nil {
			t.Error(err)
		}
		if !errors.Is(told, errHost) || !errors.Is(told, errClose) {
			t.Errorf("Ended is told %v", told)
		}
	})
}

type badCloser struct {
	Worker
	err error
}

func (c *badCloser) Close() error { return c.err }
