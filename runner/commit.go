package runner

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// An attempt is one try to commit: a cut and its upload.
type attempt struct {
	began    time.Time
	stage    stage
	requests []request // that the cut serves
	cut      *Cut      // nil until it was taken
	cutAt    time.Time
	moved    []string      // partitions with startpoints that have made progress
	pause    time.Duration // of the loop

	stoodStill *time.Duration // see Cut.Pause
	give       func()         // gives the upload slot back
	final      error          // if it failed: what the task ends with, or nil if that is tolerated
}

// A stage is where an attempt is: what it failed at.
type stage string

const (
	atSettle stage = "settle" // an earlier commit that is in doubt
	atWait   stage = "wait"   // for an upload slot, and for steps to end
	atHook   stage = "hook"
	atCut    stage = "cut"
	atUpload stage = "upload"

	atComplete stage = "complete" // what an earlier one has prepared
)

// A doubt is a commit whose outcome is not known.
type doubt struct {
	*attempt
	err error
}

var (
	errTimeout   = errors.New("the commit took longer than Options.CommitTimeout")
	errFailAfter = errors.New("no commit has succeeded within Options.FailAfter")
)

// attempt tries to commit, and handles the result. It ends when work ends.
func (t *Task) attempt(work context.Context) (*attempt, error) {
	a := &attempt{began: time.Now(), stage: atSettle, give: func() {}}
	defer func() { a.give() }()
	ctx, cancel := t.bound(work, a.began)
	defer cancel()
	ctx, span := t.runner.telemetry.begin(ctx, "holdfast.commit", t.name)
	c, err := t.commit(ctx, a)
	if err != nil && ctx.Err() != nil { // say why
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	span(err)
	if err != nil {
		t.failed(ctx, a, err)
		return a, err
	}
	t.succeeded(ctx, a, c)
	return a, nil
}

// bound bounds the time of an attempt.
func (t *Task) bound(work context.Context, now time.Time) (context.Context, context.CancelFunc) {
	left, cause := t.timeLeft(now)
	return context.WithTimeoutCause(work, left, cause)
}

// timeLeft returns how long an attempt or a hook that begins now may take, and the error
// of one that takes longer.
func (t *Task) timeLeft(now time.Time) (time.Duration, error) {
	opts := &t.runner.opts
	t.mu.Lock()
	due := t.schedule.dueFrom()
	t.mu.Unlock()
	left := due.Add(opts.FailAfter).Sub(now)
	if opts.FailAfter > 0 && !due.IsZero() && left < opts.CommitTimeout {
		return left, errFailAfter
	}
	return opts.CommitTimeout, errTimeout
}

// forHook returns a context for a hook that comes after an attempt: it has the values of
// that one's, and a time of its own, which is short if the task's is up.
func (t *Task) forHook(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx = context.WithoutCancel(ctx)
	left, cause := t.timeLeft(time.Now())
	if t.work.Err() != nil || left <= 0 {
		return context.WithTimeout(ctx, closeTime)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, left, cause)
	ctx, giveUp := context.WithCancelCause(ctx)
	stop := context.AfterFunc(t.work, func() { giveUp(context.Cause(t.work)) })
	return ctx, func() {
		stop()
		giveUp(nil)
		cancel()
	}
}

// commit is the life of a commit.
func (t *Task) commit(ctx context.Context, a *attempt) (*checkpoint.Checkpoint, error) {
	if err := t.settle(ctx); err != nil {
		return nil, err
	}
	a.stage = atComplete
	if err := t.complete(ctx); err != nil {
		return nil, err
	}
	a.stage = atWait
	give, err := t.quiet(ctx)
	if err != nil {
		return nil, err
	}
	a.give = give
	snapshot, err := t.takeCut(ctx, a)
	if err != nil {
		return nil, err
	}
	a.stage = atUpload
	began := time.Now()
	c, err := t.upload(ctx, a, snapshot)
	t.runner.telemetry.phase(ctx, "upload", time.Since(began))
	return c, err
}

// patience is how long an attempt that has an upload slot waits for steps to end before it
// gives the slot to another task.
const patience = 10 * time.Second

var errImpatient = errors.New("a step takes long")

// quiet waits for an upload slot, and then until no step runs. The slot comes first for
// two reasons: while the task's loop is paused, it does not wait for uploads of other
// tasks; and only as many cuts are in memory as there are slots.
func (t *Task) quiet(ctx context.Context) (give func(), err error) {
	began := time.Now()
	for {
		give, err := t.runner.commits.take(ctx, 0)
		if err != nil {
			return nil, err
		}
		if err := t.prepare(ctx); err != nil {
			give()
			return nil, err
		}
		short, cancel := context.WithTimeoutCause(ctx, patience, errImpatient)
		err = t.gate.pause(short)
		cancel()
		if err == nil {
			t.runner.telemetry.phase(ctx, "wait", time.Since(began))
			return give, nil
		}
		give()
		if !errors.Is(err, errImpatient) {
			return nil, err
		}
		t.log.WarnContext(ctx, "a checkpoint waits for a step to end; keep steps short", "waited", time.Since(began))
	}
}

// prepare makes the next cut quicker, if the state can do that beside the loop.
func (t *Task) prepare(ctx context.Context) error {
	p, ok := t.cutter.(Preparer)
	if !ok {
		return nil
	}
	return guard("prepare", func() error { return p.Prepare(ctx) })
}

// takeCut captures the state and the position that belongs to it, and opens the
// gate again, whatever comes of it.
func (t *Task) takeCut(ctx context.Context, a *attempt) (checkpoint.Snapshot, error) {
	a.cutAt = time.Now()
	defer func() {
		t.gate.resume()
		a.pause = time.Since(a.cutAt)
		t.runner.telemetry.phase(ctx, "cut", a.pause)
	}()
	var spoiled error
	if a.requests, spoiled = t.takeRequests(); spoiled != nil {
		return checkpoint.Snapshot{}, spoiled
	}
	a.stage = atHook
	p := &Position{ctx: ctx, offsets: t.offsets}
	if err := t.before(ctx, p); err != nil {
		return checkpoint.Snapshot{}, err
	}
	a.stage = atCut
	kept := &removals{}
	cut, err := guarded("cut", func() (Cut, error) { return t.cutter.Cut(withRemovals(ctx, kept)) })
	kept.add(cut.remove)
	cut.remove = kept.remove
	if err != nil {
		a.cut = &Cut{remove: cut.remove}
		return checkpoint.Snapshot{}, err
	}
	a.cut, a.stoodStill = &cut, cut.Pause
	offsets := t.offsets.all()
	if cut.Offsets != nil {
		offsets = cut.Offsets
	}
	a.moved = t.startpoints.progressed(offsets, cut.Offsets != nil, t.offsets, t.restored.starts.wasAsked)
	s := checkpoint.Snapshot{Offsets: offsets, OffsetsAre: t.spec.OffsetsAre, Labels: t.label(&cut, t.startpoints.usedBy(a.moved))}
	if name := savepointOf(a.requests); name != nil {
		s.Savepoint, s.SavepointExpiresAfter = name.name, name.expires
	}
	return s, nil
}

func (t *Task) before(ctx context.Context, p *Position) error {
	if t.spec.Hooks.Before == nil {
		return nil
	}
	err := guard("hook before the commit", func() error { return t.spec.Hooks.Before(ctx, p) })
	if err == nil {
		t.offsets.set(p.moved)
	}
	return err
}

// upload commits the cut.
func (t *Task) upload(ctx context.Context, a *attempt, s checkpoint.Snapshot) (*checkpoint.Checkpoint, error) {
	if err := errors.Join(t.checkCut(a.cut), t.checkPrepared(a.cut)); err != nil {
		return nil, err
	}
	s.State = join(a.cut.Stores)
	return t.owner.Commit(ctx, s)
}

// checkCut makes sure that a cut has all stores: one that is missing would be lost.
func (t *Task) checkCut(c *Cut) error {
	want := t.spec.Stores
	if len(want) == 0 {
		want = []string{""}
	}
	for store := range c.Stores {
		if !slices.Contains(want, store) {
			return backend.Invalidf("the cut has a store %q, which is not in Spec.Stores: leave it out, or name it there", store)
		}
	}
	if len(c.Stores) == 0 && t.hasState {
		return backend.Invalidf("the cut has no state, and the checkpoint before has one, which would be lost: return a source for it in Cut.Stores")
	}
	for _, store := range t.spec.Stores {
		if _, ok := c.Stores[store]; !ok {
			return backend.Invalidf("the cut lacks store %q: return a source for each of Spec.Stores", store)
		}
	}
	return nil
}

// takeRequests takes those who have asked for a commit until now, and that one
// checkpoint can serve: it has one name. Its error says that there can be no more.
func (t *Task) takeRequests() ([]request, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var taken, left []request
	for _, r := range t.requests {
		if r.savepoint != nil && savepointOf(taken) != nil {
			left = append(left, r)
		} else {
			taken = append(taken, r)
		}
	}
	t.requests, t.cutTaken = left, true
	return taken, t.spoiled
}

// takeAllRequests takes those whom no attempt will serve.
func (t *Task) takeAllRequests() []request {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.requests
	t.requests = nil
	return taken
}

// settle finds out what came of a commit in doubt before anything else is done.
func (t *Task) settle(ctx context.Context) error {
	d := t.doubt
	if d == nil {
		return nil
	}
	if err := settle(ctx, t.owner); err != nil {
		return err
	}
	c, err := newest(ctx, t.owner)
	if err != nil {
		return err
	}
	t.doubt = nil
	if c == nil || c.Seq == t.seq {
		t.log.WarnContext(ctx, "a commit that was in doubt was not made")
		t.dropCut(d.attempt, nil, fmt.Errorf("it was not committed: %w", d.err))
		return nil
	}
	t.log.InfoContext(ctx, "a commit that was in doubt was made", "checkpoint", c.Seq)
	t.mu.Lock()
	t.failures, t.timeouts, t.trouble = 0, 0, nil // it was none, after all
	t.schedule.madeAfterAll(time.Now())
	t.gate.hold(t.schedule.holdFrom())
	t.mu.Unlock()
	t.runner.telemetry.stored(ctx, c)
	t.committed(ctx, d.attempt, c)
	return nil
}

// leaveInDoubt ends a doubt that nobody here will settle.
func (t *Task) leaveInDoubt() {
	if d := t.doubt; d != nil {
		t.doubt = nil
		t.dropCut(d.attempt, nil, d.err)
	}
}

// dropCut tells the host that a cut is not needed any more.
func (t *Task) dropCut(a *attempt, c *checkpoint.Checkpoint, err error) {
	if a.cut == nil {
		return
	}
	done, remove := a.cut.Done, a.cut.remove
	a.cut.Done, a.cut.remove = nil, nil
	var left error
	if done != nil {
		left = guard("Cut.Done", func() error { done(c, err); return nil })
	}
	if remove != nil {
		left = errors.Join(left, guard("removing the cut", remove))
	}
	if left != nil {
		t.log.Error("a cut may remain", "err", left)
	}
}

// succeeded is what follows from a commit.
func (t *Task) succeeded(ctx context.Context, a *attempt, c *checkpoint.Checkpoint) {
	now := time.Now()
	t.mu.Lock()
	t.failures, t.timeouts, t.cutTaken, t.trouble = 0, 0, false, nil
	pause := a.pause
	if a.stoodStill != nil {
		pause = *a.stoodStill
	}
	t.schedule.succeeded(a.began, now, pause, len(t.requests) > 0)
	t.gate.hold(t.schedule.holdFrom())
	t.mu.Unlock()
	t.runner.telemetry.committed(ctx, now.Sub(a.began), c)
	t.log.DebugContext(ctx, "committed", "checkpoint", c.Seq, "took", now.Sub(a.began), "pause", a.pause, "new_bytes", c.NewBytes)
	t.committed(ctx, a, c)
	answerAll(a.requests, outcome{checkpoint: c})
}

// committed is what follows from a checkpoint that is durable, whenever that
// becomes known.
func (t *Task) committed(ctx context.Context, a *attempt, c *checkpoint.Checkpoint) {
	t.hasState = c.Files > 0
	t.seq = c.Seq
	t.mu.Lock()
	t.covered, t.alive = a.cutAt, time.Now()
	t.mu.Unlock()
	t.notePlace()
	t.dropCut(a, c, nil)
	a.give() // not before the cut is gone, and not after the hook
	t.removeStartpoints(ctx, a.moved)
	t.incomplete = t.toComplete(c)
	if err := t.complete(ctx); err != nil {
		t.runner.telemetry.failed(ctx, string(atComplete))
		t.log.WarnContext(ctx, "the checkpoint stands; there is no other before that is done", "checkpoint", c.Seq, "err", err)
	}
	if t.spec.Hooks.After == nil {
		return
	}
	ctx, cancel := t.forHook(ctx)
	defer cancel()
	if err := guard("hook after the commit", func() error { return t.spec.Hooks.After(ctx, c) }); err != nil {
		t.runner.telemetry.failed(ctx, "after")
		t.log.WarnContext(ctx, "the hook after a commit failed; the checkpoint stands", "checkpoint", c.Seq, "err", err)
	}
}

// notePlace records that what is in Spec.State has been saved.
func (t *Task) notePlace() {
	if t.place == nil {
		return
	}
	if err := t.place.saved(); err != nil {
		t.log.Warn("the run directory cannot be written to", "err", err)
	}
}

// failed is what follows from an attempt that failed.
func (t *Task) failed(ctx context.Context, a *attempt, err error) {
	kind := kindOf(err, a.stage)
	requests := append(a.requests, t.takeUnserved(a)...)
	a.final = t.count(kind, a, err)
	if a.final != nil {
		t.finishWith(a.final, false) // processing stops before anything else
	}
	if errors.Is(err, checkpoint.ErrUnknown) && !errors.Is(err, checkpoint.ErrFenced) && a.stage == atUpload {
		t.doubt = &doubt{a, err}
	} else {
		t.dropCut(a, nil, err)
	}
	a.give()
	if t.work.Err() == nil {
		t.runner.telemetry.failed(ctx, kind)
		what := "a checkpoint failed; the one before stands"
		if a.stage == atComplete {
			what = "what the last checkpoint has prepared is not completed; there is no other one before that is done"
		}
		t.log.WarnContext(ctx, what, "kind", kind, "final", a.final != nil, "err", err)
	}
	if hook := t.spec.Hooks.Failed; hook != nil {
		ctx, cancel := t.forHook(ctx) // the attempt's may have ended
		defer cancel()
		if err := guard("hook of a failure", func() error { hook(ctx, err); return nil }); err != nil {
			t.log.ErrorContext(ctx, "the hook of a failure failed", "err", err)
		}
	}
	answerAll(requests, outcome{err: fmt.Errorf("task %q: %w", t.name, err)})
}

// takeUnserved takes those who wait for an attempt that has come to no cut.
func (t *Task) takeUnserved(a *attempt) []request {
	if a.stage == atSettle || a.stage == atComplete || a.stage == atWait {
		return t.takeAllRequests()
	}
	return nil
}

// count counts a failure. It returns what the task ends with, or nil if that is
// tolerated.
func (t *Task) count(kind string, a *attempt, err error) (final error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cutTaken = false
	if t.work.Err() == nil {
		t.trouble = err
	}
	opts := &t.runner.opts
	now := time.Now()
	overdue := opts.FailAfter > 0 && !t.schedule.due.IsZero() && now.Sub(t.schedule.due) >= opts.FailAfter
	t.runner.telemetry.coalesced(t.ctx, t.schedule.failed(now, len(t.requests) > 0))
	t.gate.hold(t.schedule.holdFrom())
	switch {
	case errors.Is(err, checkpoint.ErrFenced), errors.Is(err, checkpoint.ErrLost):
		return err // the owner will commit nothing more
	case t.work.Err() != nil:
		return nil // it was given up
	case t.spoiled != nil:
		return t.spoiled
	case a.nameTaken(err):
		return nil // that is the fault of whoever asked
	case kind == kindTimeout:
		t.timeouts++
	default:
		t.failures++
	}
	if t.failures > max(opts.MaxFailures, 0) || t.timeouts > max(opts.MaxTimeouts, 0) || overdue {
		return fmt.Errorf("%w: since the last success %d have failed, and %d took too long; the last one: %w",
			ErrTooManyFailures, t.failures, t.timeouts, err)
	}
	return nil
}

// nameTaken reports whether an attempt failed because the task has a savepoint of the name
// already that was asked for.
func (a *attempt) nameTaken(err error) bool {
	return savepointOf(a.requests) != nil && errors.Is(err, checkpoint.ErrConflict)
}

const kindTimeout = "timeout"

// kindOf returns the kind of a failure, for metrics: fenced, timeout, panic,
// unknown, or the stage at which it happened.
func kindOf(err error, s stage) string {
	p := (*PanicError)(nil)
	switch {
	case errors.Is(err, checkpoint.ErrFenced):
		return "fenced"
	case errors.Is(err, errTimeout), errors.Is(err, errFailAfter):
		return kindTimeout
	case errors.As(err, &p):
		return "panic"
	case errors.Is(err, checkpoint.ErrUnknown), errors.Is(err, checkpoint.ErrUnsettled):
		return "unknown"
	}
	return string(s)
}

// A PanicError is a panic of the host in what the runner calls: a cut, a hook.
type PanicError struct {
	In    string // what panicked
	Value any    // what it panicked with
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("panic in %s: %v\n%s", e.In, e.Value, e.Stack)
}

// Unwrap returns what it panicked with, if that is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// guard makes a panic an error.
func guard(what string, do func() error) error {
	_, err := guarded(what, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

func guarded[T any](what string, do func() (T, error)) (v T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{what, r, debug.Stack()}
		} else if err != nil {
			err = fmt.Errorf("%s: %w", what, err)
		}
	}()
	return do()
}
