package runner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A Runner decides when the tasks that a program owns checkpoint. It may be used
// from many goroutines at once.
type Runner struct {
	job       *checkpoint.Job
	opts      Options
	commits   *pool
	restores  *pool
	copies    *pool // restores of standbys
	telemetry *telemetry

	mu       sync.Mutex
	interval time.Duration
	tasks    map[string]*Task // also those that are not open yet
	standbys map[string]*Standby
	drained  bool
}

// New returns a Runner for tasks of job, which the caller closes after
// [Runner.Drain].
func New(job *checkpoint.Job, opts Options) (*Runner, error) {
	if job == nil {
		return nil, backend.Invalidf("runner: there is no job: open one with checkpoint.Open")
	}
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Runner{
		job: job, opts: opts, interval: opts.Interval, tasks: make(map[string]*Task),
		commits: newPool(opts.Commits), restores: newPool(opts.Restores), copies: newPool(opts.Restores),
	}
	r.telemetry, err = newTelemetry(r)
	return r, err
}

// Own makes this process the owner of a task, fences every earlier one, restores
// each of its stores, and opens it. From then on the task commits by itself.
//
// ctx governs Own alone, and not the task. Own may be called while other tasks
// run, and from many goroutines; a task that is owned already is an error. After
// any error nothing is left open or locked.
func (r *Runner) Own(ctx context.Context, name string, spec Spec) (*Task, error) {
	if err := spec.check(name); err != nil {
		return nil, err
	}
	if err := checkName(r.job, name); err != nil {
		return nil, err
	}
	t := newTask(ctx, r, name, spec)
	if err := r.add(t); err != nil {
		return nil, err
	}
	return r.own(ctx, t)
}

// own starts a task that was added.
func (r *Runner) own(ctx context.Context, t *Task) (*Task, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.ctx, func() { cancel(context.Cause(t.ctx)) })() // drained, say
	r.telemetry.zero(ctx)
	if err := t.start(ctx); err != nil {
		return nil, fmt.Errorf("task %q: %w", t.name, err)
	}
	return t, nil
}

func (r *Runner) add(t *Task) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drained {
		return fmt.Errorf("task %q: %w", t.name, ErrDrained)
	}
	if r.tasks[t.name] != nil {
		return backend.Invalidf("task %q is owned by this runner already; release it first", t.name)
	}
	r.tasks[t.name] = t
	return nil
}

func (r *Runner) remove(t *Task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.tasks, t.name)
}

// all returns the tasks by name.
func (r *Runner) all() []*Task {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.tasks), byName)
}

// CommitAll asks for a commit of every task and waits for all of them. It returns
// the errors of those that failed, joined.
func (r *Runner) CommitAll(ctx context.Context) error {
	return each(r.all(), func(t *Task) error {
		if !t.runs() {
			return nil // it is not open yet
		}
		_, err := t.Commit(ctx)
		return err
	})
}

// SetInterval changes the interval of all tasks, those to come included. Zero is
// the default.
func (r *Runner) SetInterval(d time.Duration) error {
	if err := checkInterval(d); err != nil {
		return err
	}
	defaultTo(&d, DefaultInterval)
	r.mu.Lock()
	r.interval = d
	r.mu.Unlock()
	for _, t := range r.all() {
		t.setInterval(d)
	}
	return nil
}

// Drain ends all tasks: it stops their steps, waits for the commits under way,
// makes a last commit of each, closes its state, releases it and closes its owner.
// The runner takes on no more tasks, and follows none any more.
//
// All that is done within ctx. Give it a context of its own: the one whose end
// made the program stop has ended. What is not done when it ends is given up, and
// the next owner goes on from the checkpoint before. Drain says what went wrong with the
// tasks that it ends. One that has ended by itself and is closed is not among them: its
// context has the cause, and the log an event.
func (r *Runner) Drain(ctx context.Context) error {
	r.mu.Lock()
	r.drained = true
	standbys := slices.Collect(maps.Values(r.standbys))
	r.mu.Unlock()
	var closed error
	for _, s := range standbys {
		closed = errors.Join(closed, s.Close())
	}
	err := each(r.all(), func(t *Task) error { return t.stop(ctx, ErrDrained, true) })
	return errors.Join(closed, err, r.telemetry.close())
}

// each calls do with all tasks at once, and joins what it returns.
func each(tasks []*Task, do func(*Task) error) error {
	errs := make([]error, len(tasks))
	var wg sync.WaitGroup
	for i, t := range tasks {
		wg.Go(func() { errs[i] = do(t) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
