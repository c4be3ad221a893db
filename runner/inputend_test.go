package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// An error that wraps io.EOF, as that of a connection that was closed, is no end of the
// input: the state may be half changed, and is not committed.
func TestWrappedEOFIsNoEndOfInput(t *testing.T) {
	for name, fail := range map[string]error{
		"wrapped": fmt.Errorf("broker: %w", io.EOF),
		"joined":  errors.Join(io.EOF, errHost),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				as := &adders{t: t, edit: func(_ string, a *adder) {
					a.hook = func() error {
						if a.sum == 150 {
							return fail
						}
						return nil
					}
				}}
				if err := Run(t.Context(), w.runOptions("a"), as.open); !errors.Is(err, ErrHalfDone) || !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				if _, n := w.latest("a"); n >= 150 {
					t.Errorf("%d is committed of what broke at 150", n)
				}
			})
		})
	}
}

func TestIsOnlyTheEndOfAContext(t *testing.T) {
	cause := fmt.Errorf("task %q: %w: %w", "a", ErrTooManyFailures, errHost)
	ended, end := context.WithCancelCause(t.Context())
	end(cause)
	for name, test := range map[string]struct {
		ctx  context.Context
		err  error
		want bool
	}{
		"none":                      {ended, nil, false},
		"its error":                 {ended, context.Canceled, true},
		"its error, wrapped":        {ended, fmt.Errorf("read: %w", context.Canceled), true},
		"its cause":                 {ended, cause, true},
		"its cause, wrapped":        {ended, fmt.Errorf("read: %w", cause), true},
		"both":                      {ended, errors.Join(cause, context.Canceled), true},
		"another":                   {ended, errHost, false},
		"joined with another":       {ended, errors.Join(context.Canceled, errHost), false},
		"wrapped with another":      {ended, fmt.Errorf("%w: %w", errHost, cause), false},
		"deep with another":         {ended, fmt.Errorf("read: %w", errors.Join(errHost, cause)), false},
		"a part of its cause":       {ended, ErrTooManyFailures, false},
		"of a context that goes on": {t.Context(), context.Canceled, false},
	} {
		if got := isOnlyTheEndOf(test.ctx, test.err); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A failure that is returned together with the end of the context is a failure.
func TestFailureWithTheEndOfTheContext(t *testing.T) {
	t.Run("of Process", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			ctx, cancel := context.WithCancel(t.Context())
			fails := workerFunc(func(ctx context.Context) error {
				time.AfterFunc(time.Second, cancel)
				<-ctx.Done()
				return errors.Join(ctx.Err(), errHost)
			})
			err := Run(ctx, w.runOptions("a"), func(context.Context, string, *Restored) (Worker, error) { return fails, nil })
			if !errors.Is(err, errHost) {
				t.Errorf("Run returned %v", err)
			}
			if status := w.status("a"); status.Latest != nil {
				t.Error("a state that may be half changed is committed")
			}
		})
	})
	t.Run("of Assign", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			opts := w.runOptions()
			opts.Assign = func(ctx context.Context, _ *Workers) error {
				<-ctx.Done()
				return errors.Join(ctx.Err(), errHost)
			}
			if err := Run(within(t, time.Second), opts, (&adders{t: t}).open); !errors.Is(err, errHost) {
				t.Errorf("Run returned %v", err)
			}
		})
	})
}

// A workerFunc is an idle Worker with a Process of its own.
type workerFunc func(context.Context) error

func (f workerFunc) Process(ctx context.Context) error { return f(ctx) }

func (workerFunc) Cut(ctx context.Context, dir string) (Cut, error) { return idle{}.Cut(ctx, dir) }

func (workerFunc) Close() error { return nil }

// Run that is stopped while its tasks are being claimed ends without an error.
func TestRunThatIsStoppedWhileItStarts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		opts := w.runOptions("a", "b")
		opts.Job = w.job(faulty(&store))
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: time.Hour})
		began := time.Now()
		if err := Run(within(t, time.Second), opts, (&adders{t: t}).open); err != nil {
			t.Error(err)
		}
		wantAfter(t, began, time.Second, 2*time.Second)
	})
}

// At the end of the input, the last commit is tried again as every other one is.
func TestEndOfInputOutlivesFailures(t *testing.T) {
	for fails, want := range map[int]error{DefaultMaxFailures: nil, DefaultMaxFailures + 1: ErrTooManyFailures} {
		inWorld(t, func(t *testing.T, w *world) {
			as := &adders{t: t, edit: func(_ string, a *adder) { a.end = 7 }}
			left := fails
			open := func(ctx context.Context, task string, restored *Restored) (Worker, error) {
				_, err := as.open(ctx, task, restored)
				return &badCutter{as.all[task], &left}, err
			}
			if err := Run(t.Context(), w.runOptions("a"), open); !errors.Is(err, want) {
				t.Errorf("%d failures: %v; expected %v", fails, err, want)
			}
			if status := w.status("a"); want == nil && (status.Latest == nil || status.Latest.Offsets["in"] != "7") {
				t.Errorf("%d failures: the end of the input is not committed", fails)
			}
		})
	}
}

// A badCutter is an adder that fails to cut some times.
type badCutter struct {
	*adder
	left *int
}

func (c *badCutter) Cut(ctx context.Context, dir string) (Cut, error) {
	if *c.left > 0 {
		*c.left--
		return Cut{}, errHost
	}
	return c.adder.Cut(ctx, dir)
}

// Whoever takes a task away, or drains it, during its last commit at the end of the input
// does not make that an error of Run.
func TestTaskIsTakenAwayAtTheEndOfItsInput(t *testing.T) {
	for name, test := range map[string]struct {
		end       func(ctx context.Context, w *Workers) error
		committed bool
	}{
		"lost":    {func(ctx context.Context, w *Workers) error { return w.Lost(ctx, "a") }, false},
		"stopped": {func(ctx context.Context, w *Workers) error { return w.Stop(ctx, "a") }, true},
		"drained": {func(context.Context, *Workers) error { return nil }, true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var store *faultstore.Store
				opts := w.runOptions()
				opts.Job = w.job(faulty(&store))
				opts.Assign = func(ctx context.Context, workers *Workers) error {
					if err := workers.Start(ctx, "a"); err != nil {
						return err
					}
					store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 5 * time.Second})
					time.Sleep(2 * time.Second) // its input has ended after 0.7 s
					return test.end(ctx, workers)
				}
				as := &adders{t: t, edit: func(_ string, a *adder) { a.end = 7 }}
				if err := Run(t.Context(), opts, as.open); err != nil {
					t.Error(err)
				}
				if status := w.status("a"); test.committed != (status.Latest != nil) {
					t.Errorf("the newest checkpoint is %v", status.Latest)
				}
			})
		})
	}
}

// A Prepare of a Worker is called before each of its cuts, beside Process.
func TestWorkerPrepares(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := &preparingWorker{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := Run(ctx, w.runOptions("a"), func(context.Context, string, *Restored) (Worker, error) { return p, nil }); err != nil {
			t.Error(err)
		}
		if p.prepared < 5 || p.prepared != p.cuts || p.beside == 0 {
			t.Errorf("%d times for %d cuts, %d of them beside Process", p.prepared, p.cuts, p.beside)
		}
	})
}

type preparingWorker struct {
	idle
	mu                     sync.Mutex
	processing             bool
	prepared, cuts, beside int
}

func (p *preparingWorker) Process(ctx context.Context) error {
	p.processes(true)
	defer p.processes(false)
	return p.idle.Process(ctx)
}

func (p *preparingWorker) processes(is bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.processing = is
}

func (p *preparingWorker) Prepare(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prepared++
	if p.processing {
		p.beside++
	}
	return nil
}

func (p *preparingWorker) Cut(ctx context.Context, dir string) (Cut, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts++
	return p.idle.Cut(ctx, dir)
}
