package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

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

	lock     callLock // held by the method that uses the fields below
	writer   format.WriterID
	epoch    uint64
	base     *history.Committed // the newest manifest, which is this owner's
	listed   clock.Stamp        // the last store time that a listing gave for a manifest of this owner
	ages     clock.Stamp        // ages of checkpoints count back from no later than this
	existing []format.Retained  // all checkpoints as of base, base's own first
	baseline *baseline          // base's checkpoint, or nil if it has not been read yet
	segments uint32             // how many segments were begun, so that no number is used twice
	pending  *pending           // an attempt in doubt, or nil
	inUse    string             // why Resume is refused now, or ""
	ended    error              // why nothing more can be committed, or nil
	cleaner  *cleaner
	pace     history.Pace

	heartbeats atomic.Uint64 // that were sent; not under the lock
}

// A callLock is a lock that can be waited for with a context.
type callLock chan struct{}

// lock waits until the lock is free, or ctx ends. A free lock is taken even if ctx has
// ended already, because the right error depends on whether an attempt is in doubt.
func (t callLock) lock(ctx context.Context) error {
	if t.tryLock() {
		return nil
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another commit of this owner: %w", ctx.Err())
	}
}

// tryLock takes the lock if it is free.
func (t callLock) tryLock() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t callLock) unlock() { <-t }

// enter begins a call, which has the owner for itself until it calls leave.
func (o *Owner) enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	ctx, end, err := o.task.job.life.begin(ctx)
	if err != nil {
		return ctx, nil, err
	}
	if err := o.lock.lock(ctx); err != nil {
		end()
		return ctx, nil, err
	}
	return ctx, func() { o.lock.unlock(); end() }, nil
}

// pending is an attempt, and the owner's new fields if it succeeds.
type pending struct {
	*history.Attempt
	built                      // what it commits; nothing for a release
	existing []format.Retained // all checkpoints but its own
}

// ClaimOptions say how a task is claimed. The zero value is a good choice.
type ClaimOptions struct {
	// At is the checkpoint to roll back to. It becomes the latest again, and keeps its
	// number. Those that came after it are kept or removed by the next commit, as
	// Options.Retention says. Claim returns ErrNoCheckpoint if there is no such checkpoint,
	// and ErrCorrupt if one of its segments is missing; it does not read their data. The
	// zero Ref is the latest checkpoint, if there is one: nothing is rolled back.
	At Ref

	// IfEpoch, if it is not nil, claims only a task whose epoch (see Status) is still this
	// one; 0 is that of a task that nobody has claimed yet. If others have claimed it since,
	// Claim returns ErrConflict: of several that want to succeed an owner, or to be the first
	// one, one does. It is not for a rollback.
	IfEpoch *uint64
}

// Claim makes the caller the task's owner, and fences every earlier one.
// [Owner.Checkpoint] and [Owner.Resume] return the checkpoint to continue from.
//
// An ErrUnsupported says that the store cannot be used: it ignores conditional
// writes, does not list what it has, or tells two times of one object. An ErrLost says
// that the task's manifests have been deleted. After an error that is also an ErrUnknown,
// and after one that is none of this package's, the task may be claimed with nobody to use
// the claim: call Claim again.
func (t *Task) Claim(ctx context.Context, opts ClaimOptions) (*Owner, error) {
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	began := t.log.SinceBoot()
	switch {
	case opts.At != (Ref{}) && opts.IfEpoch != nil:
		return nil, backend.Invalidf("ClaimOptions has both At and IfEpoch; set one of them")
	case opts.At != (Ref{}):
		return t.claimAt(ctx, opts.At, began)
	}
	s, err := t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		if err := t.checkEpoch(base, opts.IfEpoch); err != nil {
			return nil, err
		}
		if base == nil {
			if err := t.requireNew(ctx); err != nil {
				return nil, err
			}
		}
		return t.log.Follow(base, format.KindClaim, history.ClaimsFirst), nil
	})
	if err != nil {
		return nil, err
	}
	return t.owner(ctx, s, began)
}

// checkEpoch makes sure that nobody has claimed the task since it had an epoch; nil is any.
func (t *Task) checkEpoch(base *history.Committed, want *uint64) error {
	if base == nil {
		base = history.None()
	}
	if want != nil && base.Epoch != *want {
		return fmt.Errorf("%w: task %q has epoch %d, and was to be claimed after epoch %d: another process was first", ErrConflict, t.Name(), base.Epoch, *want)
	}
	return nil
}

// owner returns the owner whose claim is manifest s. began is a reading of SinceBoot from
// before the claim's requests: a later one would not count a sleep of the machine between
// the last of these requests and the reading (see [history.Log.Append]).
func (t *Task) owner(ctx context.Context, s *history.Committed, began time.Duration) (*Owner, error) {
	all, err := t.log.All(ctx, s)
	if errors.Is(err, ErrGone) { // others have amended the claim, or have fenced it already
		s, all, err = t.log.NewestOfWriter(ctx, s.Manifest)
	}
	if err != nil {
		return nil, err
	}
	_, now := correctTimes(all, t.job.clock())
	if now.IsZero() {
		now = s.Time
	}
	listed := clock.Now(s.Time)
	listed.Boot = began
	return &Owner{
		task: t, lock: make(callLock, 1), writer: s.Writer, epoch: s.Epoch,
		base: s, existing: all, listed: listed,
		ages:    clock.Now(clock.Latest(now, clock.Earliest(s.Time, t.job.clock()))),
		cleaner: newCleaner(context.WithoutCancel(ctx), t, s),
	}, nil
}

// Epoch returns the epoch that the owner has claimed.
func (o *Owner) Epoch() uint64 { return o.epoch }

// Checkpoint returns the latest checkpoint of the task as this owner knows it:
// after Claim, the one to continue from. It returns ErrNoCheckpoint if there is none.
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

// Resume restores the state of the checkpoint that the owner continues from into dir,
// replacing whatever dir holds, and returns that checkpoint. If the task has no
// checkpoint yet, Resume makes dir an empty directory, and returns an empty checkpoint:
// its Seq is 0 and it has no offsets.
//
// Resume must come first. Once it has succeeded, or Commit was called, the state is in
// use, and Resume returns an error that wraps backend.ErrInvalid. To return to the last
// checkpoint later, close what uses the state, close the owner, and claim the task again.
//
// A dir that an earlier process has left behind may be used again, which is cheaper than
// a new one: its files are read, and data that they have in common with the checkpoint is
// not fetched. They may be half written, or of another checkpoint, because every byte is
// checked. But the process that used dir must have ended. A database that still has its
// files open would continue to write to the replaced files, which no checkpoint will
// contain; and files that it creates in dir would be in the next checkpoint.
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

// mayResume returns the reason why Resume is refused, or nil.
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
// After ErrFenced this owner can commit nothing more, nor after ErrLost: others have
// removed manifests of the task. An owner looks for that after nine commits, but not more
// often than every ten minutes, so some commits before may have returned nil. After
// ErrUnknown the checkpoint
// may have been committed, or may yet be: unless the error is also ErrFenced, the next
// call finds out before it does anything else, and returns ErrUnsettled if it cannot.
// After any other error the checkpoint was not committed, and the one before is still
// the latest; Commit may be called again.
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
	o.task.log.LetIn(ctx, &o.pace, o.base)
	if err := o.check(ctx, &s); err != nil {
		return nil, err
	}
	b, err := o.build(ctx, &s)
	if err != nil {
		o.cleaner.discard(b.segments)
		return nil, err
	}
	if err := o.commit(ctx, &s, &b); err != nil {
		return nil, err
	}
	o.pace.Committed(o.base.Time)
	return o.task.describe(o.base.Current(), b.content), nil
}

// check makes sure that s can be committed.
func (o *Owner) check(ctx context.Context, s *Snapshot) error {
	err := s.check(o.existing)
	if errors.Is(err, ErrConflict) { // the name may be free by now
		if err = o.refresh(ctx); err == nil {
			err = s.check(o.existing)
		}
	}
	return err
}

// pick returns the checkpoints that are kept beside the next one.
func (o *Owner) pick() []format.Retained {
	existing, now := correctTimes(o.existing, o.task.job.clock())
	return o.task.job.opts.Retention.pick(existing, clock.Earliest(now, o.ages.Store), o.base.Held)
}

// commit makes the next manifest, which commits b, built of s. After an error b is dropped,
// unless that is ErrUnknown.
func (o *Owner) commit(ctx context.Context, s *Snapshot, b *built) error {
	for {
		m, kept := o.next(format.KindCommit), o.pick()
		b.into(m, kept)
		if err := o.retain(ctx, m, b, kept); err != nil {
			o.drop(*b)
			return err
		}
		if err := o.make(ctx, m, kept, *b); !amended(err) {
			return err
		}
		// What was uploaded stays good: it shares data with the current checkpoint only.
		// But the list does not.
		o.cleaner.discard(b.lists)
		b.lists = nil
		if err := s.check(o.existing); err != nil {
			o.drop(*b)
			return err
		}
	}
}

// retain makes kept the checkpoints that m, which commits b, retains.
func (o *Owner) retain(ctx context.Context, m *format.Manifest, b *built, kept []format.Retained) error {
	sent, err := o.task.retain(ctx, m, o.base, o.base.Rest(o.existing), kept, o.segments)
	o.segments += uint32(len(sent))
	if err == nil {
		b.lists = sent
	}
	return err
}

func (o *Owner) build(ctx context.Context, s *Snapshot) (built, error) {
	first := format.SegmentID{Epoch: o.epoch, Writer: o.writer, N: o.segments}
	if o.baseline == nil {
		var err error
		if o.baseline, err = o.task.baseline(ctx, o.base.Current()); err != nil {
			return built{}, err
		}
	}
	b, err := o.task.build(ctx, s, o.baseline, first)
	o.segments += uint32(len(b.segments))
	if errors.Is(err, ErrGone) { // nobody else retires the checkpoint that an owner is at
		err = cmp.Or(o.refresh(ctx), err)
	}
	return b, err
}

// Check asks the store whether the task is still this owner's, and returns ErrFenced if
// another writer has taken it over. (Without Check, an owner learns that from its next
// commit.) A nil says so for the moment at which the store was asked. By the time that
// Check returns, another writer may have the task, so Check cannot protect writes to
// other systems.
//
// If a commit is in doubt, Check finds out its outcome first, and returns ErrUnsettled if
// it cannot. Unless its error wraps ErrUnsettled or ErrUnknown, the outcome of every earlier
// commit is known, and [Owner.Checkpoint] returns the last one that was committed. Check
// sends one request, and those that settle the commit.
func (o *Owner) Check(ctx context.Context) error {
	ctx, leave, err := o.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := o.ready(ctx); err != nil {
		return err
	}
	return o.refresh(ctx)
}

// refresh continues from what others have amended. It sends one request if that is nothing.
func (o *Owner) refresh(ctx context.Context) error {
	newest, all, err := o.task.log.Refresh(ctx, o.base)
	switch {
	case errors.Is(err, ErrFenced), errors.Is(err, ErrLost):
		o.ended = err
	case err == nil && newest.Seq > o.base.Seq:
		o.adopt(newest, all)
	}
	return err
}

// Release gives the task up: it writes a manifest which says that this owner will commit
// nothing more. A task need not be released to be claimed. But a released task can be
// rolled back and repaired without fencing anyone, and collected completely.
//
// After ErrUnknown or ErrUnsettled it may be called again.
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
	for {
		m := o.next(format.KindRelease)
		m.Released = true
		o.base.Repeat(m)
		if err := o.make(ctx, m, o.base.Others(o.existing), built{}); !amended(err) {
			return err
		}
	}
}

// CleanupFailures returns how often the deletion of unneeded objects has failed since
// the claim. Such a failure costs space, not safety.
func (o *Owner) CleanupFailures() int64 { return o.cleaner.failures.Load() }

// LostSegments returns how many segments the owner's first clean-up did not delete
// because they prove that manifests were lost before its claim: someone has deleted the
// newest manifests, and what they committed is not in the history any more.
// [Task.Verify] reports these segments, and [Task.Collect] with Lost deletes them.
func (o *Owner) LostSegments() int { return int(o.cleaner.lost.Load()) }

// Close waits for the call that is under way, and for clean-ups in the background. It
// does not release the task. [Job.Close] closes each owner.
//
// If ctx ends while a call is under way, Close fails and the owner stays open. If it ends
// while a clean-up is under way, that is interrupted, and Close returns the context's
// error; what was not deleted takes space until the next collection.
//
// Later calls fail with an error that wraps fs.ErrClosed, or with the error that had
// ended the owner before.
func (o *Owner) Close(ctx context.Context) error {
	if err := o.lock.lock(ctx); err != nil {
		return err
	}
	if o.ended == nil {
		o.ended = errOwnerClosed
	}
	o.lock.unlock() // later calls fail at once, and start no clean-up
	return o.cleaner.close(ctx)
}

const errReleased = closedError("the owner has released the task; claim it again")

// ready makes sure that the owner may commit, and that no earlier commit is in doubt. If
// one still is, it returns ErrUnsettled.
func (o *Owner) ready(ctx context.Context) error {
	if o.ended != nil {
		return o.ended
	}
	p := o.pending
	err := o.settle(ctx)
	if amended(err) {
		o.drop(p.built) // it was not committed
		return nil
	}
	if inDoubt := (*history.InDoubtError)(nil); errors.As(err, &inDoubt) {
		return fmt.Errorf("task %q: %w: %w", o.task.Name(), ErrUnsettled, inDoubt.Why)
	}
	if err != nil {
		return err
	}
	if o.ended == nil { // what was settled may have been a release
		o.ended = o.cleaner.unbroken()
	}
	return o.ended
}

// next returns the manifest after base, by this owner.
func (o *Owner) next(kind format.Kind) *format.Manifest {
	return &format.Manifest{
		Kind: kind, Task: o.task.Name(), Seq: o.base.Seq + 1,
		Epoch: o.epoch, Writer: o.writer, WrittenBy: o.task.log.WrittenBy, Base: o.base.AsBase(),
		Held: o.base.Held, Source: o.base.Source,
	}
}

// make commits manifest m, which holds what b has built. others are the checkpoints that
// m retains.
func (o *Owner) make(ctx context.Context, m *format.Manifest, others []format.Retained, b built) error {
	a, err := o.task.log.NewAttempt(m)
	if err != nil {
		o.drop(b)
		return err
	}
	o.pending = &pending{a, b, others}
	return o.settle(ctx)
}

// amended reports whether err says that an attempt was not made, because others have
// amended the task. The owner continues from that; what was to be committed is not dropped.
func amended(err error) bool { return errors.As(err, new(*history.AmendedError)) }

// settle finds out what came of the pending attempt, if there is one, by
// making it again. It leaves it pending only with ErrUnknown.
func (o *Owner) settle(ctx context.Context) error {
	p := o.pending
	if p == nil {
		return nil
	}
	made, err := o.task.log.Append(ctx, p.Attempt, o.base, &o.listed)
	if errors.Is(err, ErrUnknown) {
		if errors.Is(err, ErrLost) {
			o.ended = err
		}
		return err
	}
	o.pending = nil
	var by *history.AmendedError
	switch {
	case err == nil:
		o.advance(p, made)
		return nil
	case errors.As(err, &by):
		o.adopt(by.Newest, by.All)
		return err
	case errors.Is(err, history.ErrOvertaken):
		// Its manifest may be or have been in the store, so its segments must not be deleted:
		// it may have been committed, and another writer may have continued from it.
		o.ended = err
		return fmt.Errorf("%w: %w", err, ErrUnknown)
	case errors.Is(err, ErrFenced):
		o.ended = err
	}
	o.drop(p.built)
	return err
}

// drop discards what was built and will not be committed.
func (o *Owner) drop(b built) {
	if b.undo != nil {
		b.undo()
	}
	o.cleaner.discard(append(b.segments, b.lists...))
}

// adopt makes an amendment, and what it lists, the base of what follows.
func (o *Owner) adopt(newest *history.Committed, all []format.Retained) {
	base, before := o.base, o.existing
	o.base, o.existing = newest, all
	o.ages = o.ages.Follow(newest.Time)
	o.cleaner.amended(before, all, base, newest)
}

// advance makes a settled attempt the base of what follows.
func (o *Owner) advance(p *pending, made *history.Committed) {
	base, before := o.base, o.existing
	o.base, o.ages = made, o.ages.Follow(made.Time)
	o.existing = o.base.With(p.existing)
	if p.content != nil {
		o.baseline = &baseline{o.task.describe(o.base.Current(), p.content), p.tree}
		if p.tree != nil {
			p.tree.forget(o.task.job.data.lists)
		}
	}
	if made.Released {
		o.ended = errReleased
	}
	o.cleaner.retire(before, o.existing, base, made, p.content)
}
