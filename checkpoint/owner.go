package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/clock"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// FenceWindow is how old a manifest must be, by the store's clock, before it may be
// deleted. An owner that was away for more than half of it makes sure that it is still
// the owner. It is one constant for everyone, because an owner and a collector that
// disagreed on it could harm each other.
const FenceWindow = history.FenceWindow

// An Owner is the one writer of a task, until another claims it. Its methods
// may be called from many goroutines; commits are made one at a time.
type Owner struct {
	task *Task

	turn     callLock // held by the method that works with what follows
	writer   format.WriterID
	epoch    uint64
	base     *history.Committed // the last step, which is this owner's
	listed   clock.Stamp        // of the last step of its that a listing told of
	ages     clock.Stamp        // of the last step, or of an earlier time: ages count from no later
	existing []format.Retained  // all checkpoints as of base, base's first
	baseline *baseline          // base's checkpoint, or nil if it was not read yet
	segments uint32             // how many were ever begun: no number is used twice
	pending  *pending           // an attempt whose outcome is unknown
	inUse    string             // why the state is in use by now, or ""
	ended    error              // why nothing more can be committed
	cleaner  *cleaner
}

// A callLock is a lock that can be waited for with a context.
type callLock chan struct{}

// take waits for the turn. A free one is taken although ctx has ended: what an
// owner has to say then depends on whether an attempt of its is pending.
func (t callLock) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	default:
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another commit of this owner: %w", ctx.Err())
	}
}

func (t callLock) give() { <-t }

// enter begins a call, to which what the owner has belongs until it leaves.
func (o *Owner) enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	ctx, end, err := o.task.job.life.begin(ctx)
	if err != nil {
		return ctx, nil, err
	}
	if err := o.turn.take(ctx); err != nil {
		end()
		return ctx, nil, err
	}
	return ctx, func() { o.turn.give(); end() }, nil
}

// pending is an attempt and what becomes of the owner if it succeeds.
type pending struct {
	*history.Attempt
	built                      // what it commits; nothing for a release
	existing []format.Retained // all checkpoints but its own
}

// ClaimOptions say how a task is claimed. The zero value is a good choice.
type ClaimOptions struct {
	// At is the checkpoint to go back to. It becomes the latest again, and keeps its
	// number. Those that came after it stay as retention says, the next commit being the
	// newest one then. Claim returns ErrNoCheckpoint if there is no such checkpoint, and
	// ErrCorrupt if it lacks a segment: no data is read. The zero Ref goes on from the
	// latest checkpoint, if there is one.
	At Ref
}

// Claim makes the caller the task's owner, and fences every earlier one. What
// to go on from is in [Owner.Checkpoint].
//
// An ErrUnsupported says that the store cannot be used: it ignores conditional
// writes, does not list what it has, or tells two times of one object. An ErrLost says
// that the task's manifests have been deleted. After any other error the task may have
// been claimed all the same, for nobody: claim it again.
func (t *Task) Claim(ctx context.Context, opts ClaimOptions) (*Owner, error) {
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if opts.At != (Ref{}) {
		return t.claimAt(ctx, opts.At)
	}
	s, err := t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		if base == nil {
			if err := t.wantNew(ctx); err != nil {
				return nil, err
			}
		}
		return t.log.Follow(base, format.KindClaim, history.ClaimsFirst), nil
	})
	if err != nil {
		return nil, err
	}
	return t.owner(ctx, s)
}

// owner returns the owner whose claim is step s.
func (t *Task) owner(ctx context.Context, s *history.Committed) (*Owner, error) {
	all, err := t.log.All(ctx, s)
	if err != nil {
		return nil, err
	}
	_, now := reckon(all, t.job.clock())
	if now.IsZero() {
		now = s.Time
	}
	return &Owner{
		task: t, turn: make(callLock, 1), writer: s.Writer, epoch: s.Epoch,
		base: s, existing: all, listed: clock.Now(s.Time),
		ages:    clock.Now(clock.Latest(now, clock.Earliest(s.Time, t.job.clock()))),
		cleaner: newCleaner(context.WithoutCancel(ctx), t, s),
	}, nil
}

// Epoch returns the epoch that the owner has claimed.
func (o *Owner) Epoch() uint64 { return o.epoch }

// Checkpoint returns the newest checkpoint of the task as this owner knows it:
// after Claim, the one to go on from. It returns ErrNoCheckpoint if there is
// none.
func (o *Owner) Checkpoint(ctx context.Context) (*Checkpoint, error) {
	ctx, leave, err := o.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if errors.Is(o.ended, errOwnerClosed) {
		return nil, o.ended
	}
	return o.checkpoint(ctx)
}

func (o *Owner) checkpoint(ctx context.Context) (*Checkpoint, error) {
	c := o.base.Current()
	if c == nil {
		return nil, fmt.Errorf("task %q has no checkpoint: %w", o.task.Name(), ErrNoCheckpoint)
	}
	return o.task.open(ctx, c)
}

// Resume makes dir the state of the checkpoint that the owner goes on from,
// replacing whatever dir holds, and returns that checkpoint. If the task has
// none yet, dir is made empty, and the checkpoint is one of nothing: its Seq is
// 0 and it has no offsets.
//
// It is the first thing that an owner does: once it has succeeded, or Commit was
// called, the state is in use, and Resume is refused with an error that wraps
// backend.ErrInvalid. To go back to the last checkpoint, close what uses the
// state, close the owner, and claim the task again.
//
// A dir that an earlier process has left behind may be used again, and costs less
// than a new one: its files are read, and what they have in common with the
// checkpoint is not fetched. They may be in any condition, half written or of
// another checkpoint, because every byte is checked. But whoever used dir must
// have ended for certain. A database that still has its files open goes on with
// those that were replaced, so that what it writes is in no checkpoint; and what
// it makes anew in dir is in the next one.
func (o *Owner) Resume(ctx context.Context, dir string) (*Checkpoint, error) {
	ctx, leave, err := o.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := o.mayResume(ctx); err != nil {
		return nil, err
	}
	c, err := o.checkpoint(ctx)
	if errors.Is(err, ErrNoCheckpoint) {
		c, err = o.task.describe(new(format.Checkpoint), new(format.Content)), nil
	}
	if err != nil {
		return nil, err
	}
	if err := c.Restore(ctx, dir, RestoreOptions{Replace: true, ownersIfSaved: true}); err != nil {
		return nil, err
	}
	o.inUse = "has resumed already, into " + dir
	return c, nil
}

// mayResume returns why the owner cannot begin, or begin again.
func (o *Owner) mayResume(ctx context.Context) error {
	if err := o.ready(ctx); err != nil || o.inUse == "" {
		return err
	}
	return backend.Invalidf("task %q: this owner %s. Its state is in use: close first what uses it, and then this owner; "+
		"then claim the task again, and resume", o.task.Name(), o.inUse)
}

// Commit saves a snapshot as the task's next checkpoint. When it returns nil,
// the checkpoint is durable and visible.
//
// After ErrFenced the owner is of no more use. After ErrUnknown the checkpoint
// may have been committed, or may yet be: the next call finds out before it
// does anything else, unless the error is ErrFenced too. If it cannot, it returns
// ErrUnsettled. After any other error the checkpoint was not committed, and the last
// good one stands; Commit may be called again.
func (o *Owner) Commit(ctx context.Context, s Snapshot) (_ *Checkpoint, err error) {
	defer func() { s.State.failed(err) }()
	ctx, done := o.task.job.limitCommit(ctx)
	defer func() { err = done(err) }()
	ctx, leave, err := o.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := o.ready(ctx); err != nil {
		return nil, err
	}
	o.inUse = cmp.Or(o.inUse, "has committed already")
	if err := s.check(o.existing); err != nil {
		return nil, err
	}
	keep := o.task.job.opts.Retention
	existing, now := reckon(o.existing, o.task.job.clock())
	kept := keep.pick(existing, clock.Earliest(now, o.ages.Store))
	b, err := o.build(ctx, &s, kept)
	if err != nil {
		o.cleaner.discard(b.segments)
		return nil, err
	}
	m := o.next(format.KindCommit)
	b.into(m)
	if err := o.make(ctx, m, kept, b); err != nil {
		return nil, err
	}
	return o.task.describe(o.base.Current(), b.content), nil
}

func (o *Owner) build(ctx context.Context, s *Snapshot, kept []format.Retained) (built, error) {
	first := format.SegmentID{Epoch: o.epoch, Writer: o.writer, N: o.segments}
	if o.baseline == nil {
		var err error
		if o.baseline, err = o.task.baseline(ctx, o.base.Current()); err != nil {
			return built{}, err
		}
	}
	b, err := o.task.build(ctx, s, o.baseline, first, kept)
	o.segments += uint32(len(b.segments))
	return b, err
}

// Check makes sure that the owner still is one: it returns ErrFenced if another
// writer has taken the task over. Otherwise an owner learns that from its next
// commit. Its nil is of the moment at which the store was asked, and no licence to
// write anywhere else. It settles a commit that is in doubt first: unless its error is
// ErrUnknown, too, the outcome of every earlier commit is known then, and what was
// committed is what [Owner.Checkpoint] returns. It sends one request, and those that
// settle the commit.
func (o *Owner) Check(ctx context.Context) error {
	ctx, leave, err := o.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := o.ready(ctx); err != nil {
		return err
	}
	err = o.task.log.CheckNewest(ctx, o.base)
	if errors.Is(err, ErrFenced) {
		o.ended = err
	}
	return err
}

// Release gives the task up: a manifest says that this owner will commit
// nothing more. It is a courtesy, to people and to collectors; a task need not
// be released to be claimed.
//
// After ErrUnknown it may be called again.
func (o *Owner) Release(ctx context.Context) error {
	ctx, leave, err := o.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	switch err := o.ready(ctx); {
	case errors.Is(err, errReleased):
		return nil
	case err != nil:
		return err
	}
	m := o.next(format.KindRelease)
	m.Released = true
	m.Checkpoint = o.base.Current()
	m.Retained, m.RetainedAt = o.base.Retained, o.base.RetainedAt
	return o.make(ctx, m, o.base.Others(o.existing), built{})
}

// CleanupFailures returns how often deleting what is needless has failed since
// the claim. It costs space, not safety.
func (o *Owner) CleanupFailures() int64 { return o.cleaner.failures.Load() }

// LostSegments returns how many segments the owner's first clean-up has left where
// they are, because they prove that manifests were lost before its claim: someone
// has deleted the newest ones, and what they committed is not in the history any more.
// [Task.Verify] tells of them, and [Task.Collect] with Lost deletes them.
func (o *Owner) LostSegments() int { return int(o.cleaner.lost.Load()) }

// Close waits for the call that is under way, and for the clean-up that commits
// have left behind. When ctx ends, a call that is under way makes Close fail, with
// the owner still open; a clean-up is cut short, which costs space until the next
// collection, and Close returns the context's error. Close does not release the
// task. Calls that come later fail with an error that wraps fs.ErrClosed, or with
// the one that had ended the owner before. [Job.Close] closes each owner.
func (o *Owner) Close(ctx context.Context) error {
	if err := o.turn.take(ctx); err != nil {
		return err
	}
	if o.ended == nil {
		o.ended = errOwnerClosed
	}
	o.turn.give() // calls that come later fail at once, and leave nothing to clean up
	return o.cleaner.close(ctx)
}

var errReleased = errors.New("the owner has released the task; claim it again")

// ready makes sure that the owner may go on, and knows where it stands. Its error is
// ErrUnsettled if it does not.
func (o *Owner) ready(ctx context.Context) error {
	if o.ended != nil {
		return o.ended
	}
	err := o.settle(ctx)
	if inDoubt := (*history.InDoubtError)(nil); errors.As(err, &inDoubt) {
		return fmt.Errorf("task %q: %w: %w", o.task.Name(), ErrUnsettled, inDoubt.Why)
	}
	if err != nil {
		return err
	}
	return o.ended // what was settled may have been a release
}

// next returns the manifest after base, by this owner.
func (o *Owner) next(kind format.Kind) *format.Manifest {
	return &format.Manifest{
		Kind: kind, Task: o.task.Name(), Seq: o.base.Seq + 1,
		Epoch: o.epoch, Writer: o.writer,
	}
}

// make makes m, which commits b, the owner's next step. others are the
// checkpoints that exist beside m's.
func (o *Owner) make(ctx context.Context, m *format.Manifest, others []format.Retained, b built) error {
	a, err := o.task.log.NewAttempt(m)
	if err != nil {
		o.drop(b)
		return err
	}
	o.pending = &pending{a, b, others}
	return o.settle(ctx)
}

// settle finds out what came of the pending attempt, if there is one, by
// making it again. It leaves it pending only with ErrUnknown.
func (o *Owner) settle(ctx context.Context) error {
	p := o.pending
	if p == nil {
		return nil
	}
	made, err := o.task.log.Append(ctx, p.Attempt, o.base, &o.listed)
	if errors.Is(err, ErrUnknown) {
		return err
	}
	o.pending = nil
	switch {
	case err == nil:
		o.advance(p, made)
		return nil
	case errors.Is(err, history.ErrOvertaken):
		// Its manifest is in the store, so its segments are not ours to delete:
		// it may have been a step, from which another writer went on.
		o.ended = fmt.Errorf("%w: %w", ErrFenced, err)
		return fmt.Errorf("%w: %w", o.ended, ErrUnknown)
	case errors.Is(err, history.ErrTaken):
		o.ended = fmt.Errorf("%w: %w", ErrFenced, err)
		err = o.ended
	}
	o.drop(p.built)
	return err
}

// drop forgets what was built and will not be committed.
func (o *Owner) drop(b built) {
	if b.undo != nil {
		b.undo()
	}
	o.cleaner.discard(b.segments)
}

// advance makes a settled attempt the base of what follows.
func (o *Owner) advance(p *pending, made *history.Committed) {
	before := o.existing
	o.base, o.ages = made, o.ages.Follow(made.Time)
	o.existing = o.base.With(p.existing)
	if p.content != nil {
		o.baseline = &baseline{o.task.describe(o.base.Current(), p.content), p.tree}
		if p.tree != nil {
			p.tree.forget()
		}
	}
	if made.Released {
		o.ended = errReleased
	}
	o.cleaner.retire(before, o.existing, o.base, p.content)
}
