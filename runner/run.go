package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A Worker processes the input of one task. Its methods are called one at a time,
// so it needs no locks.
type Worker interface {
	// Process processes some input, a batch say, and returns. When there is none,
	// it waits until ctx ends: a checkpoint waits, or the job stops. What it has
	// begun it finishes. An error that it returns because ctx has ended is none;
	// io.EOF is the end of the input, after which the task is committed and
	// released. After any other error nothing is committed: the state may be half
	// changed.
	Process(ctx context.Context) error

	// Cut captures the state, and says how far the input was processed. It is
	// quick: what it returns is read when Process runs again. dir does not exist
	// yet, and may be made: it is removed when the checkpoint is made.
	Cut(dir string) (checkpoint.Snapshot, error)

	// Close closes the state.
	Close() error
}

// RunOptions say what Run runs.
type RunOptions struct {
	// Options configure the runner.
	Options

	// Job is where checkpoints are kept. The caller closes it.
	Job *checkpoint.Job

	// Dir is a directory for the run directories of all tasks.
	Dir string

	// Tasks are the tasks of this process, if that is fixed: Run ends when all
	// have come to the end of their inputs. Otherwise Assign says so as it goes.
	Tasks  []string
	Assign Assign

	// Spec is what all tasks have in common: Inputs and Hooks, say. Run sets its
	// Dir and Open, and Stores must be empty: a Worker's state is one.
	Spec Spec

	// Grace is how long the last commits of all tasks may take when ctx has
	// ended. Default 30 s.
	Grace time.Duration

	// Ended, if it is not nil, is called when a task has ended by itself, with the
	// reason: checkpoint.ErrFenced, ErrTooManyFailures, or what its Worker
	// returned. If it returns nil the others go on. Otherwise, and without it, Run
	// ends with the error.
	Ended func(task string, err error) error
}

// An Assign decides which tasks this process works on: by leases, or as a member
// of a consumer group. It starts and stops them, and returns when ctx has ended.
// When it returns, the tasks that still run are committed and released.
type Assign func(ctx context.Context, w *Workers) error

// Run works on tasks until ctx ends: it claims and restores each, calls open with
// what was restored, and lets the worker process input, with checkpoints as
// Options say. When ctx has ended, it makes a last commit of each task within
// Grace, and releases it. It returns nil if all that succeeded. Signals are the
// caller's: see [signal.NotifyContext].
//
// [signal.NotifyContext]: https://pkg.go.dev/os/signal#NotifyContext
func Run(ctx context.Context, opts RunOptions, open func(ctx context.Context, task string, restored *Restored) (Worker, error)) error {
	if err := opts.check(); err != nil {
		return err
	}
	r, err := New(opts.Job, opts.Options)
	if err != nil {
		return err
	}
	opts.Grace = cmp.Or(opts.Grace, DefaultGrace)
	ctx, fail := context.WithCancelCause(ctx)
	grace, cancel := afterGrace(ctx, opts.Grace)
	defer cancel()
	w := &Workers{runner: r, opts: &opts, open: open, grace: grace, fail: fail}
	assign := opts.Assign
	if assign == nil {
		assign = w.fixed
	}
	err = assign(ctx, w)
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
		err = nil // it was asked to end
	}
	fail(nil) // the time of grace begins
	err = errors.Join(err, r.Drain(grace))
	w.running.Wait()
	return errors.Join(w.err, err)
}

func (o *RunOptions) check() error {
	switch {
	case o.Dir == "":
		return backend.Invalidf("runner: there is no directory to work in: set RunOptions.Dir")
	case (len(o.Tasks) == 0) == (o.Assign == nil):
		return backend.Invalidf("runner: set either RunOptions.Tasks or RunOptions.Assign")
	case len(o.Spec.Stores) > 0 || len(o.Spec.Dropped) > 0:
		return backend.Invalidf("runner: a Worker has one state without a name; use Runner.Own for named stores")
	case o.Grace < 0:
		return backend.Invalidf("runner: Grace is %v; it must not be negative", o.Grace)
	}
	return nil
}

var errGrace = errors.New("the time of grace is over")

// afterGrace returns a context that ends some time after ctx has ended.
func afterGrace(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(grace, func() { cancel(errGrace) })
		context.AfterFunc(late, func() { t.Stop() })
	})
	return late, func() {
		stop()
		cancel(nil)
	}
}

// Workers are the tasks that Run works on. Its methods may be called from many
// goroutines.
type Workers struct {
	runner  *Runner
	opts    *RunOptions
	open    func(ctx context.Context, task string, restored *Restored) (Worker, error)
	grace   context.Context // of last commits
	fail    context.CancelCauseFunc
	running sync.WaitGroup

	mu    sync.Mutex
	err   error // why Run ends
	tasks map[string]*Task
}

// Start claims a task, restores it, and begins to work on it.
func (w *Workers) Start(ctx context.Context, task string) error {
	var worker Worker
	spec := w.opts.Spec
	spec.Dir = filepath.Join(w.opts.Dir, dirName(task))
	spec.Open = func(ctx context.Context, restored *Restored) (c Cutter, err error) {
		if worker, err = w.open(ctx, task, restored); err != nil || worker == nil {
			return nil, err
		}
		return &workerCutter{worker: worker, cuts: restored.Cuts}, nil
	}
	t, err := w.runner.Own(ctx, task, spec)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tasks == nil {
		w.tasks = make(map[string]*Task)
	}
	w.tasks[task] = t
	w.running.Go(func() { w.work(t, worker) })
	return nil
}

// Stop makes a last commit of a task and releases it: it is to go elsewhere.
func (w *Workers) Stop(ctx context.Context, task string) error {
	if t := w.task(task); t != nil {
		return t.Release(ctx)
	}
	return nil
}

// Lost ends a task without a commit: it has gone elsewhere.
func (w *Workers) Lost(ctx context.Context, task string) error {
	if t := w.task(task); t != nil {
		return t.Abandon(ctx)
	}
	return nil
}

func (w *Workers) task(name string) *Task {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tasks[name]
}

// fixed is the Assign of a fixed list of tasks.
func (w *Workers) fixed(ctx context.Context, _ *Workers) error {
	group, starting := errgroup.WithContext(ctx)
	for _, task := range w.opts.Tasks {
		group.Go(func() error { return w.Start(starting, task) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		w.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return nil
}

// work works on a task until it ends.
func (w *Workers) work(t *Task, worker Worker) {
	err := w.process(t, worker)
	if errors.Is(err, io.EOF) {
		err = t.Release(w.grace)
	}
	<-t.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tasks[t.name] == t {
		delete(w.tasks, t.name)
	}
	if err != nil && w.opts.Ended != nil {
		err = w.opts.Ended(t.name, err)
	}
	if err != nil {
		w.err = errors.Join(w.err, err)
		w.fail(err)
	}
}

// process calls Process until the task ends. It returns nil if someone ended it.
func (w *Workers) process(t *Task, worker Worker) error {
	for {
		err := t.Step(t.Context(), func(p *Position) error {
			err := guard("Process", func() error { return worker.Process(p.Context()) })
			ctx := p.Context()
			switch {
			case err == nil, errors.Is(err, io.EOF):
				return err
			case ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))):
				return nil
			}
			return fmt.Errorf("%w: %w", ErrHalfDone, err)
		})
		if t.Context().Err() != nil {
			return endedBy(t)
		}
		if err != nil {
			return err
		}
	}
}

// endedBy returns why a task has ended, or nil if someone asked for it.
func endedBy(t *Task) error {
	err := t.cause()
	for _, asked := range []error{ErrDrained, ErrReleased, ErrAbandoned} {
		if errors.Is(err, asked) {
			return nil
		}
	}
	return err
}

// A workerCutter is a Worker as a Cutter.
type workerCutter struct {
	worker Worker
	cuts   string
	n      int
}

func (c *workerCutter) Cut(context.Context) (Cut, error) {
	c.n++
	dir := filepath.Join(c.cuts, strconv.Itoa(c.n))
	snapshot, err := guarded("Worker", func() (checkpoint.Snapshot, error) { return c.worker.Cut(dir) })
	if err != nil {
		return Cut{}, errors.Join(err, removeTree(dir))
	}
	return Cut{snapshot: &snapshot, Done: func(*checkpoint.Checkpoint, error) { _ = removeTree(dir) }}, nil
}

func (c *workerCutter) Close() error { return c.worker.Close() }
