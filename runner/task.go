package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/backend"
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

	restored    *Restored
	startpoints *startpoints
	gate        *gate
	offsets     *offsets

	// For the goroutine of loop, and before that for Own.
	dir      *runDir
	place    *place // where the state is, if not in dir
	owner    *checkpoint.Owner
	cutter   Cutter
	seq      uint64 // of the last checkpoint that is known; 0 for none
	hasState bool   // it has files
	doubt    *doubt // a commit of which it is not known what came

	incomplete *checkpoint.Checkpoint // whose prepared effects are not completed yet, or nil

	standby   *Standby               // that the task was promoted from, or nil
	ifEpoch   *uint64                // of the task, for which alone it is claimed; nil for any
	warm      *checkpoint.Checkpoint // what the standby has left in the directory, or nil
	stopHeart func()                 // ends the heartbeats, and waits for that

	mu       sync.Mutex
	schedule *schedule // nil before the loop runs
	requests []request // those that no cut has served yet
	cutTaken bool      // the attempt that is under way has its cut
	last     bool      // the task ends with a last commit, and is released
	asIs     bool      // there is no last commit all the same
	spoiled  error     // why the state must not be committed any more
	failures int       // in a row, without time-outs
	timeouts int       // since the last success
	trouble  error     // of the last attempt, if it has failed
	covered  time.Time // all that was done until then is in a checkpoint
	alive    time.Time // when it last gave a sign of life
}

// A request is someone who asked for a commit, and who may wait for what comes of
// it.
type request struct {
	answer    chan<- outcome // has room for it; nil if nobody waits
	savepoint *savepoint     // that the checkpoint is to be; nil for any
}

// A savepoint is the name of a checkpoint that is to be kept.
type savepoint struct {
	name    string
	expires time.Duration
}

type outcome struct {
	checkpoint *checkpoint.Checkpoint
	err        error
}

// savepointOf returns the first savepoint that is asked for, or nil.
func savepointOf(requests []request) *savepoint {
	for _, r := range requests {
		if r.savepoint != nil {
			return r.savepoint
		}
	}
	return nil
}

func byName(a, b *Task) int { return cmp.Compare(a.name, b.name) }

func newTask(ctx context.Context, r *Runner, name string, spec Spec) *Task {
	t := &Task{
		runner: r, name: name, spec: spec, log: r.opts.Logger.With("task", name),
		wake: make(chan struct{}, 1), done: make(chan struct{}), stopHeart: func() {}, ifEpoch: spec.IfEpoch,
	}
	base := context.WithoutCancel(ctx)
	t.ctx, t.end = context.WithCancelCause(base)
	t.work, t.giveUp = context.WithCancelCause(base)
	t.gate = newGate(t.ctx)
	return t
}

// Name returns the task's name.
func (t *Task) Name() string { return t.name }

// Epoch returns the epoch of the claim by which this process owns the task.
func (t *Task) Epoch() uint64 { return t.owner.Epoch() }

// Restored returns what the task went on from.
func (t *Task) Restored() *Restored { return t.restored }

// Context ends when the task is to do nothing more: with the cause
// checkpoint.ErrFenced when another process has claimed it, checkpoint.ErrLost when
// somebody has removed its manifests, ErrTooManyFailures,
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
// If work fails, the offsets are as they were before. That the state is too is for work
// to see to, by a transaction say, or to deny by [ErrHalfDone]. If work panics or ends its
// goroutine, it could say neither, and the task ends as after ErrHalfDone.
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
		t.request(request{})
	}
	return nil
}

func (t *Task) run(p *Position, work func(p *Position) error) error {
	defer t.gate.leave()
	returned := false
	defer func() {
		if !returned {
			t.spoil(fmt.Errorf("%w: the step has panicked, or ended its goroutine", ErrHalfDone))
		}
	}()
	err := work(p)
	returned = true
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
	return t.ask(ctx, nil)
}

// Savepoint is [Task.Commit] with a name for the checkpoint, which is then kept
// whatever the retention: for as long after the commit as expires says, or for good
// if that is 0. A checkpoint has one name, so several savepoints are as many commits.
// A name that no savepoint can have is refused at once with backend.ErrInvalid. One that is
// taken (checkpoint.ErrConflict) fails the commit, also for those who wait for the same one;
// that is not counted to Options.MaxFailures, and the last commit of a task is then made
// without the name.
func (t *Task) Savepoint(ctx context.Context, name string, expires time.Duration) (*checkpoint.Checkpoint, error) {
	if err := checkpoint.CheckSavepointName(name); err != nil {
		return nil, fmt.Errorf("task %q: %w", t.name, err)
	}
	if expires < 0 {
		return nil, backend.Invalidf("task %q: a savepoint that expires after %v; that must not be negative", t.name, expires)
	}
	return t.ask(ctx, &savepoint{name, expires})
}

func (t *Task) ask(ctx context.Context, s *savepoint) (*checkpoint.Checkpoint, error) {
	answer := make(chan outcome, 1)
	t.request(request{answer, s})
	select {
	case o := <-answer:
		return o.checkpoint, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("task %q: waiting for a commit: %w", t.name, context.Cause(ctx))
	}
}

// request makes a commit due.
func (t *Task) request(r request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		answerAll([]request{r}, outcome{err: t.cause()})
		return
	}
	ownCommit := t.cutTaken && len(t.requests) == 0 || r.savepoint != nil && savepointOf(t.requests) != nil
	if t.schedule.request(time.Now()) && !ownCommit {
		t.runner.telemetry.coalesced(t.ctx, 1)
	}
	t.requests = append(t.requests, r)
	t.nudge()
}

func answerAll(requests []request, o outcome) {
	for _, r := range requests {
		if r.answer != nil {
			r.answer <- o
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
// its owner, all within ctx. A last commit that fails is tried again, as every other one.
// If the task has ended by itself, Release waits until it is closed, and returns the cause.
func (t *Task) Release(ctx context.Context) error { return t.stop(ctx, ErrReleased, true) }

// ReleaseAsIs is [Task.Release] without a last commit: the next owner goes on from the
// last checkpoint. It is for a state of which the host knows that it is not consistent, or
// that has an owner of its own who says when it is.
func (t *Task) ReleaseAsIs(ctx context.Context) error {
	t.mu.Lock()
	t.asIs = true
	t.mu.Unlock()
	return t.stop(ctx, ErrReleased, true)
}

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
		return t.notClosed(context.Cause(ctx))
	}
	why := context.Cause(t.ctx)
	asIs := errors.Is(why, cause) || last && (errors.Is(why, ErrReleased) || errors.Is(why, ErrDrained))
	if !asIs {
		return errors.Join(t.cause(), t.closed)
	}
	return t.closed
}

// notClosed returns the error for a task that takes longer to end than there is time: with what
// its commits fail with, if they do.
func (t *Task) notClosed(cause error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.trouble != nil {
		return fmt.Errorf("task %q is not closed yet: %w; its last commit fails: %w", t.name, cause, t.trouble)
	}
	return fmt.Errorf("task %q is not closed yet: %w", t.name, cause)
}

// finishWith makes the task end with a cause, unless it has one already.
func (t *Task) finishWith(cause error, last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return
	}
	t.last = last
	t.end(cause) // before the gate: whoever a step is refused finds the task's context ended
	t.gate.close(fmt.Errorf("task %q: %w", t.name, cause))
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
			_, _ = t.attempt(t.work) // which it was told of
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
	if t.last && !t.asIs {
		err = t.lastCommit()
	}
	_ = t.gate.pause(context.WithoutCancel(t.ctx)) // a step that still runs uses the state
	t.leaveInDoubt()
	err = errors.Join(err, guard("close", t.cutter.Close))
	if t.last && !errors.Is(err, checkpoint.ErrFenced) {
		err = errors.Join(err, t.release())
	}
	t.logEnd(err)
	t.shut(err)
}

// logEnd says that a task has ended, and why: it is an error if nobody asked for that.
func (t *Task) logEnd(err error) {
	level := slog.LevelInfo
	if endedBy(t) != nil {
		level = slog.LevelError
	}
	ctx := context.WithoutCancel(t.ctx)
	log := t.log
	if err != nil {
		log = log.With("err", err)
	}
	log.Log(ctx, level, "ended", "cause", context.Cause(t.ctx), "checkpoint", t.seq)
}

// lastCommit makes a last commit. It has the time of whoever ends the task, and tries again
// under the rules of every other commit.
func (t *Task) lastCommit() error {
	if t.work.Err() != nil {
		return fmt.Errorf("no last commit: %w", context.Cause(t.work))
	}
	for failures := 0; ; {
		a, err := t.tryLastCommit()
		switch {
		case err == nil:
			return t.complete(t.work) // if that has failed before; or the next owner does it
		case a.final != nil:
			return fmt.Errorf("last commit: %w", a.final)
		case a.nameTaken(err):
			continue // whoever asked for that name was told, and it is not asked for again
		}
		select {
		case <-time.After(retryWait(failures)):
			failures++
		case <-t.work.Done():
			return fmt.Errorf("last commit: %w", err)
		}
	}
}

func (t *Task) tryLastCommit() (*attempt, error) {
	earlier := t.doubt
	a, err := t.attempt(t.work)
	if d := t.doubt; err != nil && d != nil {
		before := t.seq
		err = errors.Join(err, t.settle(t.work))
		if d != earlier && t.seq != before {
			return a, nil // it was made
		}
	}
	return a, err
}

// release gives the task up.
func (t *Task) release() error {
	if t.work.Err() != nil {
		return fmt.Errorf("not released: %w", context.Cause(t.work))
	}
	t.stopHeart()
	return t.owner.Release(t.work)
}

// closeTime bounds the wait for the clean-up of an owner, which costs space if it
// is not done, and no more.
const closeTime = 5 * time.Second

// shut closes what every task has, whether it was opened or not.
func (t *Task) shut(err error) {
	t.stopHeart()
	if t.owner != nil {
		t.closeOwner()
	}
	if t.dir != nil {
		err = errors.Join(err, t.dir.unlock())
	}
	if err != nil {
		t.closed = fmt.Errorf("task %q: %w", t.name, err)
	}
	answerAll(t.takeAllRequests(), outcome{err: t.cause()})
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
