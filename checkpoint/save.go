package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// SaveOptions say what a save may do. The zero value is a good choice.
type SaveOptions struct {
	// Fence lets a checkpoint be saved although the task is claimed, which fences its owner.
	Fence bool
}

// Save saves one checkpoint of a task that has no owner: it claims, commits and releases
// the task in one manifest. It returns ErrClaimed for a task that is claimed, unless the
// options say otherwise.
//
// If another writer is first, Save returns ErrConflict and saves nothing. After an error
// that wraps ErrUnknown, the checkpoint may have been saved, or may yet be; one error may
// wrap both. After any other error nothing was saved.
func (t *Task) Save(ctx context.Context, s Snapshot, opts SaveOptions) (_ *Checkpoint, err error) {
	defer func() { s.State.failed(err) }()
	ctx, done := t.job.limitCommit(ctx)
	defer func() { err = done(err) }()
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	base, existing, err := t.log.NewestAndAll(ctx)
	if err != nil {
		return nil, overtaken(err)
	}
	if err := s.check(existing); err != nil {
		return nil, err
	}
	if err := t.maySave(ctx, base, opts.Fence); err != nil {
		return nil, overtaken(err)
	}
	m := t.log.Follow(base, format.KindCommit, history.SegmentsFirst)
	m.Released = true
	old, now := correctTimes(existing, t.job.clock())
	kept := t.job.opts.Retention.pick(old, now, m.Held)
	b, err := t.fill(ctx, m, &s, base, existing, kept)
	if err != nil {
		return nil, overtaken(err)
	}
	made, err := t.appendSaved(ctx, m, b)
	if err != nil {
		return nil, err
	}
	c := newCleaner(ctx, t, made)
	c.swept, c.alone = true, true // a save is to cost few requests, and does not wait for owners
	c.retire(existing, made.With(kept), base, made, b.content)
	_ = c.close(ctx) // what it does not delete, the next collection deletes
	return t.describe(made.Current(), b.content), nil
}

// overtaken returns the error of a save that has sent no manifest. What it continues from
// is gone only if another writer has continued from that.
func overtaken(err error) error {
	if errors.Is(err, ErrGone) {
		return fmt.Errorf("%w: nothing was saved, because another writer was first; save again if this state is still wanted", ErrConflict)
	}
	return err
}

// fill stores what a snapshot consists of, and the list of the checkpoints that are kept
// beside it, and fills the manifest m, which is to follow base, with both. If it fails,
// nothing of them is left.
func (t *Task) fill(ctx context.Context, m *format.Manifest, s *Snapshot, base *history.Committed, existing, kept []format.Retained) (*built, error) {
	from, err := t.baseline(ctx, base.Current())
	if err != nil {
		return nil, err
	}
	b, err := t.build(ctx, s, from, format.SegmentID{Epoch: m.Epoch, Writer: m.Writer})
	if err == nil {
		b.into(m, kept)
		b.lists, err = t.retain(ctx, m, base, base.Rest(existing), kept, uint32(len(b.segments)))
	}
	if err != nil {
		t.discard(ctx, b.segments)
		return nil, err
	}
	return &b, nil
}

// appendSaved appends the manifest of a save. If it is certain that there will be no such
// manifest, what was stored for it is deleted.
func (t *Task) appendSaved(ctx context.Context, m *format.Manifest, b *built) (*history.Committed, error) {
	made, err := t.log.AppendOnce(ctx, m, false)
	if err == nil || errors.Is(err, ErrUnknown) {
		return made, err
	}
	t.discard(ctx, append(b.segments, b.lists...))
	if errors.Is(err, history.ErrTaken) {
		err = fmt.Errorf("%w: nothing was saved, because %w; save again if this state is still wanted", ErrConflict, err)
	}
	return nil, err
}

// limitCommit bounds the time that a commit takes by Options.CommitTimeout. done must be
// called with the commit's error. If that time-out caused the error, done says so in it.
func (j *Job) limitCommit(ctx context.Context) (_ context.Context, done func(error) error) {
	if j.opts.CommitTimeout == 0 {
		return ctx, func(err error) error { return err }
	}
	limited, cancel := context.WithTimeout(ctx, j.opts.CommitTimeout)
	return limited, func(err error) error {
		defer cancel()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && limited.Err() != nil {
			err = fmt.Errorf("the commit took longer than %v, which is Options.CommitTimeout: %w", j.opts.CommitTimeout, err)
		}
		return err
	}
}

// maySave makes sure that a save may follow base, which may be nil. It returns ErrGone if
// base is not the newest manifest any more.
func (t *Task) maySave(ctx context.Context, base *history.Committed, fence bool) error {
	if base == nil {
		return t.requireNew(ctx)
	}
	if err := t.mayFence(base, fence); err != nil {
		return t.log.Refuse(ctx, base, err)
	}
	return nil
}

// mayFence returns ErrClaimed if a manifest after base would fence an owner, and fence is
// not set. base may be nil.
func (t *Task) mayFence(base *history.Committed, fence bool) error {
	if fence || base == nil || !base.Claimed() {
		return nil
	}
	last := "it has committed nothing yet"
	if c := base.Current(); c != nil && c.Epoch == base.Epoch {
		last = "its last commit was at " + c.Time.UTC().Format(time.RFC3339)
	}
	return fmt.Errorf("task %q belongs to epoch %d, %s; %s: %w", t.Name(), base.Epoch, base.Who(), last, ErrClaimed)
}

// into makes b the checkpoint of manifest m. kept are those beside it.
func (b *built) into(m *format.Manifest, kept []format.Retained) {
	b.checkpoint.Seq, b.checkpoint.Epoch = m.Seq, m.Epoch
	m.Checkpoint = b.checkpoint
	if !b.checkpoint.Foreign {
		m.KeepSource(kept)
	}
}

// discardTime bounds the time that a save which failed spends on tidying up,
// when the store does not answer or the user has given up.
const discardTime = 5 * time.Second

// discard deletes segments that no manifest will ever name. Its failure does no harm:
// what is left is garbage, which any later collection deletes.
func (t *Task) discard(ctx context.Context, keys []string) {
	if len(keys) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTime)
	defer cancel()
	if err := t.job.store.Delete(ctx, keys...); err != nil {
		t.job.opts.Logger.WarnContext(ctx, "segments of a failed save remain", "task", t.Name(), "segments", len(keys), "err", err)
	}
}
