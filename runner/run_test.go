package runner

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// An adder is a Worker that adds up the numbers of an input of its own. It fails
// the test if two of its methods run at once.
type adder struct {
	t    *testing.T
	file string
	sum  int

	mu     sync.Mutex // taken by a method, which must find it free
	end    int        // of the input; 0 is none
	hook   func() error
	closed bool
}

func (a *adder) alone() (leave func()) {
	if !a.mu.TryLock() {
		a.t.Error("two methods of a Worker run at once")
		return func() {}
	}
	return a.mu.Unlock
}

func (a *adder) Process(ctx context.Context) error {
	defer a.alone()()
	if a.end > 0 && a.sum >= a.end {
		return io.EOF
	}
	select {
	case <-time.After(100 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	a.sum++
	if a.hook != nil {
		return a.hook()
	}
	return nil
}

func (a *adder) Cut(_ context.Context, dir string) (Cut, error) {
	defer a.alone()()
	time.Sleep(5 * time.Millisecond)
	sum := strconv.Itoa(a.sum)
	err := errors.Join(os.Mkdir(dir, 0o777), os.WriteFile(filepath.Join(dir, "n"), []byte(sum), 0o666))
	return Cut{Offsets: map[string]string{"in": sum}, Stores: map[string]checkpoint.Source{"": checkpoint.Dir(dir)}}, err
}

func (a *adder) Close() error {
	defer a.alone()()
	a.closed = true
	return nil
}

// adders opens adders for tasks.
type adders struct {
	t    *testing.T
	mu   sync.Mutex
	all  map[string]*adder
	edit func(task string, a *adder)
}

func (as *adders) open(_ context.Context, task string, restored *Restored) (Worker, error) {
	a := &adder{t: as.t, file: filepath.Join(restored.Dir(""), "n")}
	if data, err := os.ReadFile(a.file); err == nil {
		a.sum, _ = strconv.Atoi(string(data))
	}
	if as.edit != nil {
		as.edit(task, a)
	}
	as.mu.Lock()
	defer as.mu.Unlock()
	if as.all == nil {
		as.all = make(map[string]*adder)
	}
	as.all[task] = a
	return a, nil
}

func (w *world) runOptions(tasks ...string) RunOptions {
	return RunOptions{Job: w.job(), Dir: w.dir, Tasks: tasks, Options: Options{Logger: silent, Interval: 10 * time.Second}}
}

// Run works until its context ends, makes last commits, and goes on from them.
func TestRun(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for life := range 3 {
			as := &adders{t: t}
			ctx, cancel := context.WithTimeout(t.Context(), 35*time.Second)
			if err := Run(ctx, w.runOptions("a", "b", "c"), as.open); err != nil {
				t.Fatal(err)
			}
			cancel()
			for task, a := range as.all {
				if _, n := w.latest(task); n != a.sum || n < 340*(life+1) || !a.closed {
					t.Errorf("life %d, task %s: %d is committed of %d", life, task, n, a.sum)
				}
				if w.status(task).Claimed {
					t.Errorf("task %s is not released", task)
				}
			}
		}
		if left, err := filepath.Glob(filepath.Join(w.dir, "*/cuts/*")); err != nil || len(left) > 0 {
			t.Errorf("cuts are left: %v", left)
		}
	})
}

// At the end of all inputs Run ends.
func TestRunToTheEndOfInput(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		as := &adders{t: t, edit: func(task string, a *adder) { a.end = 100 * len(task) }}
		began := time.Now()
		if err := Run(t.Context(), w.runOptions("a", "bb", "ccc"), as.open); err != nil {
			t.Fatal(err)
		}
		wantAfter(t, began, 30*time.Second, 31*time.Second)
		for task := range as.all {
			if _, n := w.latest(task); n != 100*len(task) {
				t.Errorf("task %s: %d is committed", task, n)
			}
		}
	})
}

// A Process that fails or panics commits nothing more of its task, and ends Run
// with last commits of the others.
func TestRunWhenAWorkerFails(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error": func() error { return errHost },
		"panic": func() error { panic(errHost) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				as := &adders{t: t, edit: func(task string, a *adder) {
					if task == "bad" {
						a.hook = func() error {
							if a.sum == 150 {
								return fail()
							}
							return nil
						}
					}
				}}
				err := Run(t.Context(), w.runOptions("bad", "good"), as.open)
				if !errors.Is(err, errHost) || !strings.Contains(err.Error(), "bad") {
					t.Error(err)
				}
				if _, n := w.latest("bad"); n < 50 || n >= 150 {
					t.Errorf("%d is committed of what failed at 150", n)
				}
				if _, n := w.latest("good"); n != as.all["good"].sum || n < 149 {
					t.Errorf("%d is committed of %d", n, as.all["good"].sum)
				}
			})
		})
	}
}

// With Ended, the others go on.
func TestRunGoesOnWithoutATask(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		as := &adders{t: t, edit: func(task string, a *adder) {
			if task == "bad" {
				a.hook = func() error { return errHost }
			}
		}}
		opts := w.runOptions("bad", "good")
		var ended []string
		opts.Ended = func(task string, err error) error {
			if !errors.Is(err, errHost) {
				t.Error(err)
			}
			ended = append(ended, task)
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := Run(ctx, opts, as.open); err != nil {
			t.Error(err)
		}
		if _, n := w.latest("good"); n < 590 || !slices.Equal(ended, []string{"bad"}) {
			t.Errorf("%d is committed, ended: %v", n, ended)
		}
	})
}

// A task that is fenced ends Run with that error.
func TestRunWhenFenced(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		time.AfterFunc(15*time.Second, func() {
			w.own(w.runner(w.job(), Options{Interval: Manual}), "a", func(s *Spec) { s.Dir = t.TempDir() })
		})
		as := &adders{t: t}
		began := time.Now()
		if err := Run(t.Context(), w.runOptions("a"), as.open); !errors.Is(err, checkpoint.ErrFenced) {
			t.Error(err)
		}
		wantAfter(t, began, 15*time.Second, 26*time.Second)
	})
}

// When the context ends, last commits have the time of grace, and no more.
func TestRunEndsWithinGrace(t *testing.T) {
	for grace, want := range map[time.Duration]time.Duration{0: DefaultGrace, 7 * time.Second: 7 * time.Second} {
		inWorld(t, func(t *testing.T, w *world) {
			var store *faultstore.Store
			opts := w.runOptions("a", "b")
			opts.Job, opts.Grace = w.job(faulty(&store)), grace
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(5*time.Second, func() {
				store.Arm(faultstore.Fault{Kind: faultstore.Delay, For: time.Hour})
				cancel()
			})
			began := time.Now()
			if err := Run(ctx, opts, (&adders{t: t}).open); err == nil {
				t.Error("the last commits are lost without an error")
			}
			wantAfter(t, began, 5*time.Second+want, 5*time.Second+want+closeTime)
		})
	}
}

// Assign starts and stops tasks while others run.
func TestRunWithAssign(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		as := &adders{t: t}
		opts := w.runOptions()
		opts.Assign = func(ctx context.Context, workers *Workers) error {
			for _, task := range []string{"a", "b", "c"} {
				if err := workers.Start(ctx, task); err != nil {
					return err
				}
			}
			time.Sleep(12 * time.Second)
			if err := workers.Stop(ctx, "a"); err != nil {
				return err
			}
			if _, n := w.latest("a"); n != as.all["a"].sum {
				t.Errorf("%d is committed of a task that was stopped at %d", n, as.all["a"].sum)
			}
			if err := workers.Lost(ctx, "b"); err != nil {
				return err
			}
			if _, n := w.latest("b"); n == as.all["b"].sum {
				t.Error("a task that was lost is committed")
			}
			if err := workers.Start(ctx, "a"); err != nil {
				return err
			}
			if err := workers.Stop(ctx, "none"); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := Run(ctx, opts, as.open); err != nil {
			t.Fatal(err)
		}
		for _, task := range []string{"a", "c"} {
			if _, n := w.latest(task); n != as.all[task].sum || n < 500 {
				t.Errorf("%s: %d is committed of %d", task, n, as.all[task].sum)
			}
		}
	})
}

// When a task's former life ends here after its next one has begun, Stop stops the new one.
func TestStopAfterASecondStart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		as := &adders{t: t}
		opts := w.runOptions()
		opts.Assign = func(ctx context.Context, workers *Workers) error {
			if err := workers.Start(ctx, "a"); err != nil {
				return err
			}
			former, next := workers.task("a"), new(Task)
			workers.mu.Lock() // so that the end of the former life is noticed late
			err := former.Release(ctx)
			workers.tasks["a"] = next
			workers.mu.Unlock()
			synctest.Wait()
			if workers.task("a") != next {
				t.Error("the next life is not known")
			}
			workers.mu.Lock()
			delete(workers.tasks, "a")
			workers.mu.Unlock()
			return err
		}
		if err := Run(t.Context(), opts, as.open); err != nil {
			t.Fatal(err)
		}
	})
}

// A worker that waits for input is interrupted for a checkpoint.
func TestIdleWorkerIsInterrupted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, func() {
			synctest.Wait()
			if seq, _ := w.latest("idle"); seq < 5 {
				t.Errorf("checkpoint %d after a minute of waiting", seq)
			}
			cancel()
		})
		open := func(context.Context, string, *Restored) (Worker, error) { return idle{}, nil }
		if err := Run(ctx, w.runOptions("idle"), open); err != nil {
			t.Error(err)
		}
	})
}

type idle struct{}

func (idle) Process(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func (idle) Cut(context.Context, string) (Cut, error) {
	return Cut{Offsets: map[string]string{}, Stores: map[string]checkpoint.Source{"": checkpoint.Stream("n", strings.NewReader("0"))}}, nil
}

func (idle) Close() error { return nil }

func TestBadRunOptions(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for name, edit := range map[string]func(*RunOptions){
			"no directory": func(o *RunOptions) { o.Dir = "" },
			"no tasks":     func(o *RunOptions) { o.Tasks = nil },
			"both":         func(o *RunOptions) { o.Assign = func(context.Context, *Workers) error { return nil } },
			"stores":       func(o *RunOptions) { o.Spec.Stores = []string{"a"} },
			"grace":        func(o *RunOptions) { o.Grace = -1 },
			"no job":       func(o *RunOptions) { o.Job = nil },
			"twice":        func(o *RunOptions) { o.Tasks = []string{"a", "b", "a"} },
			"one epoch":    func(o *RunOptions) { o.Spec.IfEpoch = new(uint64(1)) },
			"Spec.Dir":     func(o *RunOptions) { o.Spec.Dir = w.dir },
			"Spec.Open":    func(o *RunOptions) { o.Spec.Open = (&host{}).open },
		} {
			opts := w.runOptions("a")
			edit(&opts)
			if err := Run(t.Context(), opts, (&adders{t: t}).open); !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		noWorker := func(context.Context, string, *Restored) (Worker, error) { return nil, nil }
		for name, open := range map[string]func(context.Context, string, *Restored) (Worker, error){"no open": nil, "no Worker": noWorker} {
			if err := Run(t.Context(), w.runOptions("a"), open); !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
