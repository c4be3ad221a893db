package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// An Owner is the one writer of a task, until another claims it. Its methods
// may be called from many goroutines; commits are made one at a time.
type Owner struct {
	task *Task

	turn     turn // held by the method that works with what follows
	writer   format.WriterID
	epoch    uint64
	base     *step             // the last step, which is this owner's
	listed   stamp             // of the last step of its that a listing told of
	ages     stamp             // of the last step, or of an earlier time: ages count from no later
	existing []format.Retained // all checkpoints as of base, base's first
	baseline *baseline         // base's checkpoint, or nil if it was not read yet
	segments uint32            // how many were ever begun: no number is used twice
	pending  *pending          // an attempt whose outcome is unknown
	inUse    string            // why the state is in use by now, or ""
	ended    error             // why nothing more can be committed
	cleaner  *cleaner
}

// A turn is a lock that can be waited for with a context.
type turn chan struct{}

// take waits for the turn. A free one is taken although ctx has ended: what an
// owner has to say then depends on whether an attempt of its is pending.
func (t turn) take(ctx context.Context) error {
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

func (t turn) give() { <-t }

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
	*attempt
	built                      // what it commits; nothing for a release
	existing []format.Retained // all checkpoints but its own
}

// Claim makes the caller the task's owner, and fences every earlier one. What
// to go on from is in [Owner.Checkpoint].
//
// An ErrUnsupported says that the store cannot be used: it ignores conditional
// writes, does not list what it has, or tells two times of one object. An ErrLost says
// that the task's manifests have been deleted. After any other error the task may have
// been claimed all the same, for nobody: claim it again.
func (t *Task) Claim(ctx context.Context) (*Owner, error) {
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	s, err := t.history.claim(ctx, func(base *step) (*format.Manifest, error) {
		if base == nil {
			if err := t.wantNew(ctx); err != nil {
				return nil, err
			}
		}
		return t.history.follow(base, format.KindClaim, newWriter(claimsFirst)), nil
	})
	if err != nil {
		return nil, err
	}
	return t.owner(ctx, s)
}

// owner returns the owner whose claim is step s.
func (t *Task) owner(ctx context.Context, s *step) (*Owner, error) {
	all, err := t.all(ctx, s)
	if err != nil {
		return nil, err
	}
	_, now := reckon(all, t.job.clock())
	if now.IsZero() {
		now = s.time
	}
	return &Owner{
		task: t, turn: make(turn, 1), writer: s.Writer, epoch: s.Epoch,
		base: s, existing: all, listed: newStamp(s.time),
		ages:    newStamp(latest(now, earliest(s.time, t.job.clock()))),
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
	c := o.base.checkpoint()
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

// mayResume returns why the owner can not begin, or begin again.
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
// does anything else, unless the error is ErrFenced too. After any other error
// it was not committed, and the last good checkpoint stands; Commit may be
// called again.
func (o *Owner) Commit(ctx context.Context, s Snapshot) (_ *Checkpoint, err error) {
	defer func() { s.State.failed(err) }()
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
	if err := keep.check(); err != nil {
		return nil, err
	}
	existing, now := reckon(o.existing, o.task.job.clock())
	kept := keep.pick(existing, earliest(now, o.ages.store))
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
	return o.task.describe(o.base.checkpoint(), b.content), nil
}

func (o *Owner) build(ctx context.Context, s *Snapshot, kept []format.Retained) (built, error) {
	first := format.SegmentID{Epoch: o.epoch, Writer: o.writer, N: o.segments}
	if o.baseline == nil {
		var err error
		if o.baseline, err = o.task.baseline(ctx, o.base.checkpoint()); err != nil {
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
	seq, _, err := o.task.history.newestSeq(ctx)
	switch {
	case err != nil:
		return err
	case seq < o.base.Seq:
		return o.task.history.hidden(o.base.Seq)
	case seq > o.base.Seq:
		o.ended = fmt.Errorf("%w: manifest %d of task %q is not of this owner", ErrFenced, seq, o.task.Name())
		return o.ended
	}
	return nil
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
	m.Checkpoint = o.base.checkpoint()
	m.Retained, m.RetainedAt = o.base.Retained, o.base.RetainedAt
	return o.make(ctx, m, o.base.others(o.existing), built{})
}

// CleanUpFailures returns how often deleting what is needless has failed since
// the claim. It costs space, not safety.
func (o *Owner) CleanUpFailures() int64 { return o.cleaner.failures.Load() }

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

// ready makes sure that the owner may go on, and knows where it stands.
func (o *Owner) ready(ctx context.Context) error {
	if o.ended != nil {
		return o.ended
	}
	if err := o.settle(ctx); err != nil {
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
	a, err := newAttempt(m)
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
	made, err := o.task.history.create(ctx, p.attempt)
	if err == nil {
		err = o.confirm(ctx, p.attempt, made)
	}
	if errors.Is(err, ErrUnknown) {
		return err
	}
	o.pending = nil
	switch {
	case err == nil:
		o.advance(p, made)
		return nil
	case errors.Is(err, errOvertaken):
		// Its manifest is in the store, so its segments are not ours to delete:
		// it may have been a step, from which another writer went on.
		o.ended = fmt.Errorf("%w: %w", ErrFenced, err)
		return fmt.Errorf("%w: %w", o.ended, ErrUnknown)
	case errors.Is(err, errLost):
		o.ended = fmt.Errorf("%w: %w", ErrFenced, err)
		err = o.ended
	}
	o.drop(p.built)
	return err
}

// confirm closes the hole that create-if-absent has: when base's successor was made
// by another writer and deleted since, a create of that number succeeds. It cannot
// have been deleted within the fence window, so there is nothing to ask unless more
// than half of that lies between the two steps, by the store's clock (I5).
//
// That is so if the replies tell the same time as listings do, of which the claim
// made sure. If a reply is not what the owner's own clock would have it, something
// may have come between: it looks as well. Nothing is decided by that clock.
func (o *Owner) confirm(ctx context.Context, a *attempt, made time.Time) error {
	away := made.Sub(o.base.time)
	apart := made.Sub(o.listed.store) - o.listed.passed()
	if away >= 0 && away <= FenceWindow/2 && apart.Abs() <= maxApart {
		return nil
	}
	at, err := o.task.look(ctx, a, made)
	if err == nil && !at.IsZero() {
		o.listed = newStamp(at)
	}
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
func (o *Owner) advance(p *pending, made time.Time) {
	before := o.existing
	o.base, o.ages = &step{p.manifest, made}, o.ages.follow(made)
	o.existing = o.base.allCheckpoints(p.existing)
	if p.content != nil {
		o.baseline = &baseline{o.task.describe(o.base.checkpoint(), p.content), p.tree}
		if p.tree != nil {
			p.tree.forget()
		}
	}
	if p.manifest.Released {
		o.ended = errReleased
	}
	o.cleaner.retire(before, o.existing, o.base, p.content)
}
