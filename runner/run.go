package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A Worker processes the input of one task. Its methods are called one at a time,
// so it needs no locks. It may be a [Preparer] as well: Prepare is the one method that
// is called beside Process.
type Worker interface {
	// Process processes some input, a batch say, and returns. When there is none,
	// it waits until ctx ends: a checkpoint waits, or the job stops. What it has
	// begun it finishes. An error that it returns because ctx has ended is none;
	// io.EOF itself, as of an io.Reader, is the end of the input, after which the task
	// is committed and released. After any other error nothing is committed, because the
	// state may be half changed: also after one that wraps io.EOF, as that of a
	// connection that was closed.
	Process(ctx context.Context) error

	// Cut captures the state, and says in Cut.Offsets how far the input was
	// processed. It is quick: what it returns is read when Process runs again. dir
	// does not exist yet, and may be made: it is removed when the checkpoint is
	// made. What Cut.Done does runs beside Process.
	Cut(ctx context.Context, dir string) (Cut, error)

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
	// ended. Default 30 s. Run takes longer if a Worker does not return: it waits for
	// that, because its state cannot be closed before, and logs for which task.
	Grace time.Duration

	// Ended, if it is not nil, is called when a task has ended by itself, with the
	// reason: checkpoint.ErrFenced or ErrLost, ErrTooManyFailures, or what its
	// Worker returned. If it returns nil the others go on. Otherwise, and without it, Run
	// ends with the error. It is called for one task at a time, and may start and stop
	// tasks, this one too.
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
	if open == nil {
		return backend.Invalidf("runner: there is nothing that opens a Worker: give Run a function")
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
	if isOnlyTheEndOf(ctx, err) {
		err = nil // it was asked to end
	}
	fail(nil) // the time of grace begins
	err = errors.Join(err, r.Drain(grace))
	w.tellOfLate()
	w.running.Wait()
	return errors.Join(w.err, err)
}

// tellOfLate says which tasks Run still waits for when the time of grace is over.
func (w *Workers) tellOfLate() {
	if w.grace.Err() == nil {
		return
	}
	for _, t := range w.all() {
		if !isClosed(t.done) {
			t.log.Warn("the time of grace is over, and the task is still at work: Run waits until Process, Cut or Close has returned")
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.starts {
		w.runner.opts.Logger.Warn("the time of grace is over, and the task is still being started: Run waits until that has ended", "task", name)
	}
}

func (o *RunOptions) check() error {
	switch {
	case o.Dir == "":
		return backend.Invalidf("runner: there is no directory to work in: set RunOptions.Dir")
	case (len(o.Tasks) == 0) == (o.Assign == nil):
		return backend.Invalidf("runner: set either RunOptions.Tasks or RunOptions.Assign")
	case o.Spec.Dir != "":
		return backend.Invalidf("runner: RunOptions.Spec.Dir is set; set RunOptions.Dir, in which each task gets a directory")
	case o.Spec.Open != nil:
		return backend.Invalidf("runner: RunOptions.Spec.Open is set; what opens a Worker is an argument of Run")
	case o.Spec.IfEpoch != nil:
		return backend.Invalidf("runner: RunOptions.Spec.IfEpoch is set, which is of one task; use Runner.Own")
	case len(o.Spec.Stores) > 0 || len(o.Spec.Dropped) > 0:
		return backend.Invalidf("runner: RunOptions.Spec names stores, and a Worker has one state without a name; use Runner.Own for named stores")
	case o.Grace < 0:
		return backend.Invalidf("runner: RunOptions.Grace is %v; set a positive time, or 0 for the default", o.Grace)
	}
	for i, task := range o.Tasks {
		if slices.Contains(o.Tasks[:i], task) {
			return backend.Invalidf("runner: RunOptions.Tasks names task %q twice", task)
		}
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

	ending sync.Mutex // so that Ended is called for one task at a time

	mu     sync.Mutex
	err    error // why Run ends
	tasks  map[string]*Task
	starts map[string]*taskStart // those that are under way
}

// A taskStart is a Start that is under way.
type taskStart struct {
	end   context.CancelCauseFunc
	ended chan struct{}
}

// Start claims a task, restores it, and begins to work on it. If Stop or Lost comes
// meanwhile, it gives up, and returns ErrReleased or ErrAbandoned.
func (w *Workers) Start(ctx context.Context, task string) error {
	return w.start(ctx, task, func(ctx context.Context, spec Spec) (*Task, error) { return w.runner.Own(ctx, task, spec) })
}

// Follow keeps the directory of a task that another process owns up to date until ctx ends:
// see [Runner.Follow]. interval is FollowSpec.Interval.
func (w *Workers) Follow(ctx context.Context, task string, interval time.Duration) (*Standby, error) {
	return w.runner.Follow(ctx, task, FollowSpec{Dir: w.dir(task), Interval: interval})
}

// Promote is Start for a task that was followed: see [Standby.Promote].
func (w *Workers) Promote(ctx context.Context, s *Standby) error {
	return w.start(ctx, s.name, func(ctx context.Context, spec Spec) (*Task, error) { return s.Promote(ctx, spec) })
}

func (w *Workers) dir(task string) string { return filepath.Join(w.opts.Dir, dirName(task)) }

// start begins to work on a task that own makes this process the owner of.
func (w *Workers) start(ctx context.Context, task string, own func(context.Context, Spec) (*Task, error)) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	leave, err := w.enterStart(task, end)
	if err != nil {
		return err
	}
	defer leave()
	var worker Worker
	spec := w.opts.Spec
	spec.Dir = w.dir(task)
	spec.Open = func(ctx context.Context, restored *Restored) (c Cutter, err error) {
		if worker, err = w.open(ctx, task, restored); err != nil {
			return nil, err
		}
		if worker == nil {
			return nil, backend.Invalidf("the function that Run was given returned no Worker")
		}
		return &workerCutter{worker: worker, cuts: restored.Cuts}, nil
	}
	t, err := own(ctx, spec)
	if err != nil && ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
		// What came of a claim that was interrupted may be unknown. That is no other error.
		return fmt.Errorf("%w: %v", context.Cause(ctx), err) //nolint:errorlint // see above
	}
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

// enterStart makes a Start known to Stop and Lost, until leave is called.
func (w *Workers) enterStart(task string, end context.CancelCauseFunc) (leave func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.starts[task] != nil {
		return nil, backend.Invalidf("task %q is being started already", task)
	}
	if w.starts == nil {
		w.starts = make(map[string]*taskStart)
	}
	s := &taskStart{end, make(chan struct{})}
	w.starts[task] = s
	w.running.Add(1) // Run does not return before
	return func() {
		defer w.running.Done()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.starts, task)
		close(s.ended)
	}, nil
}

// endStart ends a Start of the task that is under way, and waits for it. If it was too
// late for that, the task runs.
func (w *Workers) endStart(ctx context.Context, task string, why error) error {
	w.mu.Lock()
	s := w.starts[task]
	w.mu.Unlock()
	if s == nil {
		return nil
	}
	s.end(why)
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("task %q is still being started: %w", task, context.Cause(ctx))
	}
}

// Stop makes a last commit of a task and releases it: it is to go elsewhere. One that is
// still being started is given up.
func (w *Workers) Stop(ctx context.Context, task string) error {
	if err := w.endStart(ctx, task, ErrReleased); err != nil {
		return err
	}
	if t := w.task(task); t != nil {
		return t.Release(ctx)
	}
	return nil
}

// Lost ends a task without a commit: it has gone elsewhere. One that is still being
// started is given up.
func (w *Workers) Lost(ctx context.Context, task string) error {
	if err := w.endStart(ctx, task, ErrAbandoned); err != nil {
		return err
	}
	t := w.task(task)
	if t == nil {
		return nil
	}
	err := t.Abandon(ctx)
	if errors.Is(err, ErrReleased) && isClosed(t.done) {
		return nil // it had come to the end of its input, and its last commit was made or given up
	}
	return err
}

// Done returns a channel that is closed when a task has ended, whoever ended it, and all that
// it held is closed: at once if it does not run.
func (w *Workers) Done(task string) <-chan struct{} {
	if t := w.task(task); t != nil {
		return t.Done()
	}
	none := make(chan struct{})
	close(none)
	return none
}

// Grace returns a context for what an Assign does when its own context has ended, such as
// Stop: it ends when the time of RunOptions.Grace is over.
func (w *Workers) Grace() context.Context { return w.grace }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (w *Workers) task(name string) *Task {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tasks[name]
}

// all returns the tasks by name.
func (w *Workers) all() []*Task {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.SortedFunc(maps.Values(w.tasks), byName)
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
	atEnd, err := w.process(t, worker)
	if atEnd {
		err = w.finish(t)
	}
	<-t.Done()
	if !atEnd && err != nil {
		err = errors.Join(err, t.closed) // of which nobody else is told
	}
	w.remove(t)
	if err = w.ended(t, err); err != nil {
		w.mu.Lock()
		w.err = errors.Join(w.err, err)
		w.mu.Unlock()
		w.fail(err)
	}
}

// finish releases a task that has come to the end of its input. It is no error that
// somebody drains the task or takes it away meanwhile: that one is told how it ended.
func (w *Workers) finish(t *Task) error {
	err := t.Release(w.grace)
	if why := context.Cause(t.ctx); !errors.Is(why, ErrReleased) {
		return endedBy(t)
	}
	if errors.Is(context.Cause(t.work), ErrAbandoned) {
		return nil
	}
	return err
}

func (w *Workers) remove(t *Task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tasks[t.name] == t {
		delete(w.tasks, t.name)
	}
}

// ended tells the host that a task has ended with err, and returns what Run ends with, or
// nil if it goes on. What the host then does with other tasks needs w.mu.
func (w *Workers) ended(t *Task, err error) error {
	if err == nil || w.opts.Ended == nil {
		return err
	}
	w.ending.Lock()
	defer w.ending.Unlock()
	return w.opts.Ended(t.name, err)
}

// process calls Process until the task ends or its input does. It returns no error if
// someone ended the task.
func (w *Workers) process(t *Task, worker Worker) (atEnd bool, err error) {
	for {
		err := t.Step(t.Context(), func(p *Position) (err error) {
			var worked bool
			if atEnd, worked, err = processed(p.Context(), worker); worked {
				t.startpoints.stepped.Store(true)
			}
			return err
		})
		switch {
		case t.Context().Err() != nil:
			return false, endedBy(t)
		case atEnd || err != nil:
			return atEnd, err
		}
	}
}

// processed calls Process once. worked says that it was not interrupted. Its error means that
// the state may be half changed.
func processed(ctx context.Context, worker Worker) (atEnd, worked bool, err error) {
	err = guard("Process", func() error {
		err := worker.Process(ctx)
		if err == io.EOF { //nolint:errorlint // one that is wrapped is that of something that broke, as a connection
			atEnd, err = true, nil
		}
		return err
	})
	if err != nil && !isOnlyTheEndOf(ctx, err) {
		return false, false, fmt.Errorf("%w: %w", ErrHalfDone, err)
	}
	return atEnd, err == nil, nil
}

// isOnlyTheEndOf reports whether err says that ctx has ended, and nothing else: what is
// joined with that, by errors.Join say, is another error.
func isOnlyTheEndOf(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() == nil {
		return false
	}
	if cause := context.Cause(ctx); reflect.TypeOf(cause).Comparable() && err == cause { //nolint:errorlint // the cause may be a tree itself
		return true
	}
	switch e := err.(type) { //nolint:errorlint // it goes through the tree
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(err error) bool { return !isOnlyTheEndOf(ctx, err) })
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return isOnlyTheEndOf(ctx, inner)
		}
	}
	return errors.Is(err, ctx.Err())
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

func (c *workerCutter) Cut(ctx context.Context) (Cut, error) {
	c.n++
	dir := filepath.Join(c.cuts, strconv.Itoa(c.n))
	cut, err := guarded("Worker", func() (Cut, error) { return c.worker.Cut(ctx, dir) })
	if err == nil && cut.Offsets == nil { // those of the checkpoint before are not this one's
		err = backend.Invalidf("a Worker's Cut has no Offsets: set Cut.Offsets to how far its input was processed, or to an empty map if it has no input")
		if cut.Done != nil {
			err = errors.Join(err, guard("Cut.Done", func() error { cut.Done(nil, err); return nil }))
		}
	}
	remove := cut.remove
	cut.remove = func() (err error) {
		if remove != nil {
			err = remove()
		}
		return errors.Join(err, removeTree(dir))
	}
	return cut, err
}

// Prepare prepares the cut of a Worker that is a Preparer.
func (c *workerCutter) Prepare(ctx context.Context) error {
	if p, ok := c.worker.(Preparer); ok {
		return p.Prepare(ctx)
	}
	return nil
}

func (c *workerCutter) Close() error { return c.worker.Close() }
