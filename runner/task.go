package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A Task is a task that this process owns. Its methods may be called from many
// goroutines at once.
type Task struct {
	runner *Runner
	name   string
	spec   Spec
	log    *slog.Logger

	ctx    context.Context         // ends when the task does, or begins to
	end    context.CancelCauseFunc //
	work   context.Context         // of commits; ends when they are to be given up
	giveUp context.CancelCauseFunc //
	wake   chan struct{}           // something has changed that the loop goes by
	done   chan struct{}           // closed when all is closed
	closed error                   // what went wrong at the end; for those who saw done

	restored *Restored
	gate     *gate
	offsets  *offsets

	// For the goroutine of loop, and before that for Own.
	dir    *runDir
	owner  *checkpoint.Owner
	cutter Cutter
	seq    uint64 // of the last checkpoint that is known; 0 for none
	doubt  *doubt // a commit of which it is not known what came

	mu       sync.Mutex
	schedule *schedule // nil before the loop runs
	requests []request // those that no cut has served yet
	cutTaken bool      // the attempt that is under way has its cut
	last     bool      // the task ends with a last commit
	spoiled  error     // why the state must not be committed any more
	failures int       // in a row, without time-outs
	timeouts int       // since the last success
	covered  time.Time // all that was done until then is in a checkpoint
}

// A request is someone who asked for a commit, and who may wait for what comes of
// it.
type request chan<- outcome

type outcome struct {
	checkpoint *checkpoint.Checkpoint
	err        error
}

func byName(a, b *Task) int { return cmp.Compare(a.name, b.name) }

func newTask(ctx context.Context, r *Runner, name string, spec Spec) *Task {
	t := &Task{
		runner: r, name: name, spec: spec, log: r.opts.Logger.With("task", name),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	base := context.WithoutCancel(ctx)
	t.ctx, t.end = context.WithCancelCause(base)
	t.work, t.giveUp = context.WithCancelCause(base)
	t.gate = newGate(t.ctx)
	return t
}

// Name returns the task's name.
func (t *Task) Name() string { return t.name }

// Restored returns what the task went on from.
func (t *Task) Restored() *Restored { return t.restored }

// Context ends when the task is to do nothing more: with the cause
// checkpoint.ErrFenced when another process has claimed it, ErrTooManyFailures,
// ErrDrained, ErrReleased or ErrAbandoned. See [context.Cause]. Input is read
// under it.
func (t *Task) Context() context.Context { return t.ctx }

// Done is closed when the task has ended, and all that it held is closed.
func (t *Task) Done() <-chan struct{} { return t.done }

// Step calls work while no cut is being taken. It waits for a cut to end, and while
// a commit is overdue; several steps may run at once. What work changes in the
// state and the offsets that it advances are in the same checkpoint. A step is
// short: a cut waits for it.
//
// If work fails or panics, the offsets are as they were before. That the state is
// too is for work to see to, by a transaction say, or to deny by [ErrHalfDone].
// Step returns work's error, or the cause with which ctx or the task's context has
// ended. work must not call Step, Commit or Release of the same task.
func (t *Task) Step(ctx context.Context, work func(p *Position) error) error {
	stepCtx, held, err := t.gate.enter(ctx)
	if held > 0 {
		t.runner.telemetry.heldBack(ctx, held)
	}
	if err != nil {
		return err
	}
	p := &Position{ctx: stepCtx, offsets: t.offsets}
	if err := t.run(p, work); err != nil {
		return err
	}
	if p.commit {
		t.request(nil)
	}
	return nil
}

func (t *Task) run(p *Position, work func(p *Position) error) error {
	defer t.gate.leave()
	err := work(p)
	switch {
	case err == nil:
		t.offsets.set(p.moved)
	case errors.Is(err, ErrHalfDone):
		t.spoil(err)
	}
	return err
}

// spoil ends the task, before another cut can be taken.
func (t *Task) spoil(err error) {
	t.mu.Lock()
	t.spoiled = err
	t.mu.Unlock()
	t.finishWith(err, false)
}

// Commit asks for a commit and waits for it: one whose cut is taken after this
// call. Its error is what the attempt failed with; the task goes on, and tries
// again by itself unless the interval is Manual. If ctx ends, it only stops waiting.
func (t *Task) Commit(ctx context.Context) (*checkpoint.Checkpoint, error) {
	answer := make(chan outcome, 1)
	t.request(answer)
	select {
	case o := <-answer:
		return o.checkpoint, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("task %q: waiting for a commit: %w", t.name, context.Cause(ctx))
	}
}

// request makes a commit due. answer, which may be nil, has room for what comes of
// it.
func (t *Task) request(answer chan outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		answerAll([]request{answer}, outcome{err: t.cause()})
		return
	}
	ownCommit := t.cutTaken && len(t.requests) == 0
	if t.schedule.request(time.Now()) && !ownCommit {
		t.runner.telemetry.coalesced(t.ctx, 1)
	}
	t.requests = append(t.requests, answer)
	t.nudge()
}

func answerAll(requests []request, o outcome) {
	for _, r := range requests {
		if r != nil {
			r <- o
		}
	}
}

// runs reports whether the task was opened.
func (t *Task) runs() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.schedule != nil
}

func (t *Task) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *Task) setInterval(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.schedule != nil {
		t.schedule.setInterval(d, time.Now())
		t.nudge()
	}
}

// cause returns why the task's context has ended.
func (t *Task) cause() error { return fmt.Errorf("task %q: %w", t.name, context.Cause(t.ctx)) }

// Release ends the task: it stops its steps, waits for the commit under way, makes
// a last commit, closes the state, releases the task to the next owner and closes
// its owner, all within ctx. If the task has ended by itself, Release waits until
// it is closed, and returns the cause.
func (t *Task) Release(ctx context.Context) error { return t.stop(ctx, ErrReleased, true) }

// Abandon ends the task without a commit, and gives up the one under way: another
// process has been assigned the task. If Release is waiting, it gives up too.
func (t *Task) Abandon(ctx context.Context) error {
	t.finishWith(ErrAbandoned, false)
	t.giveUp(ErrAbandoned)
	return t.stop(ctx, ErrAbandoned, false)
}

// stop ends the task with a cause, and waits until it is closed.
func (t *Task) stop(ctx context.Context, cause error, last bool) error {
	t.finishWith(cause, last)
	unlink := context.AfterFunc(ctx, func() {
		t.giveUp(fmt.Errorf("the time for the end of the task is up: %w", context.Cause(ctx)))
	})
	defer unlink()
	select {
	case <-t.done:
	case <-ctx.Done():
		return fmt.Errorf("task %q is not closed yet: %w", t.name, context.Cause(ctx))
	}
	if why := context.Cause(t.ctx); !errors.Is(why, cause) {
		return errors.Join(t.cause(), t.closed)
	}
	return t.closed
}

// finishWith makes the task end with a cause, unless it has one already.
func (t *Task) finishWith(cause error, last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return
	}
	t.last = last
	t.gate.close(fmt.Errorf("task %q: %w", t.name, cause))
	t.end(cause)
}

// loop commits when it is time, until the task ends. It is the only goroutine of
// a task.
func (t *Task) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for t.ctx.Err() == nil {
		at, ok := t.next()
		wait := time.Until(at)
		if ok && wait <= 0 {
			_ = t.attempt(t.work) // which it was told of
			continue
		}
		var tick <-chan time.Time
		if ok {
			timer.Reset(wait)
			tick = timer.C
		}
		select {
		case <-tick:
		case <-t.wake:
		case <-t.ctx.Done():
		}
	}
	t.finish()
}

// next returns when there is something to do next, if there is: now, if a commit is
// to begin.
func (t *Task) next() (at time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.schedule.tick(time.Now())
	t.runner.telemetry.coalesced(t.ctx, n)
	t.gate.hold(t.schedule.holdFrom())
	return t.schedule.wake()
}

// finish is the order of shutting down. Input has stopped, and a commit that was
// under way has ended.
func (t *Task) finish() {
	var err error
	if t.last {
		err = t.lastCommit()
	}
	_ = t.gate.pause(context.WithoutCancel(t.ctx)) // a step that still runs uses the state
	t.leaveInDoubt()
	err = errors.Join(err, guard("close", t.cutter.Close))
	if t.last && !errors.Is(err, checkpoint.ErrFenced) {
		err = errors.Join(err, t.release())
	}
	t.shut(err)
}

// lastCommit makes a last commit. It has the time of whoever ends the task.
func (t *Task) lastCommit() error {
	if t.work.Err() != nil {
		return fmt.Errorf("no last commit: %w", context.Cause(t.work))
	}
	earlier := t.doubt
	err := t.attempt(t.work)
	if err == nil {
		return nil
	}
	if d := t.doubt; d != nil {
		before := t.seq
		err = errors.Join(err, t.settle(t.work))
		if d != earlier && t.seq != before {
			return nil // it was made
		}
	}
	return fmt.Errorf("last commit: %w", err)
}

// release gives the task up.
func (t *Task) release() error {
	if t.work.Err() != nil {
		return fmt.Errorf("not released: %w", context.Cause(t.work))
	}
	return t.owner.Release(t.work)
}

// closeTime bounds the wait for the clean-up of an owner, which costs space if it
// is not done, and no more.
const closeTime = 5 * time.Second

// shut closes what every task has, whether it was opened or not.
func (t *Task) shut(err error) {
	if t.owner != nil {
		t.closeOwner()
	}
	if t.dir != nil {
		err = errors.Join(err, t.dir.unlock())
	}
	if err != nil {
		t.closed = fmt.Errorf("task %q: %w", t.name, err)
	}
	requests, _ := t.takeRequests()
	answerAll(requests, outcome{err: t.cause()})
	t.giveUp(context.Cause(t.ctx))
	t.runner.remove(t)
	close(t.done)
}

func (t *Task) closeOwner() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), closeTime)
	defer cancel()
	if err := t.owner.Close(ctx); err != nil {
		t.log.WarnContext(ctx, "clean-up is left to the next owner", "err", err)
	}
}
