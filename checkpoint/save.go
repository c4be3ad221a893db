package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// Save saves one checkpoint of a task that has no long-running owner: it
// claims, commits and releases the task in one manifest. An owner that the
// task may have is fenced by it, of which Options.Logger is told. If another
// writer is first, it returns ErrConflict and nothing is saved. After ErrUnknown,
// which an ErrConflict may be too, it may have been saved, or may yet be; after
// any other error nothing was.
func (t *Task) Save(ctx context.Context, s Snapshot) (_ *Checkpoint, err error) {
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
		return nil, err
	}
	if err := s.check(existing); err != nil {
		return nil, err
	}
	keep := t.job.opts.Retention
	if base == nil {
		if err := t.wantNew(ctx); errors.Is(err, ErrGone) {
			return nil, fmt.Errorf("%w: nothing was saved, because another writer was first; save again if this state is still wanted", ErrConflict)
		} else if err != nil {
			return nil, err
		}
	}
	m := t.log.Follow(base, format.KindCommit, history.SegmentsFirst)
	m.Released = true
	kept := keep.pick(reckon(existing, t.job.clock()))
	from, err := t.baseline(ctx, base.Current())
	if err != nil {
		return nil, err
	}
	b, err := t.build(ctx, &s, from, format.SegmentID{Epoch: m.Epoch, Writer: m.Writer}, kept)
	if err != nil {
		t.discard(ctx, b.segments)
		return nil, err
	}
	b.into(m)
	made, err := t.log.AppendOnce(ctx, m)
	switch {
	case err == nil:
	case errors.Is(err, ErrUnknown):
		return nil, err
	case errors.Is(err, history.ErrTaken):
		err = fmt.Errorf("%w: nothing was saved, because %w; save again if this state is still wanted", ErrConflict, err)
		fallthrough
	default:
		t.discard(ctx, b.segments)
		return nil, err
	}
	t.warnOfFencing(ctx, base)
	c := newCleaner(ctx, t, made)
	c.swept = true // a save is to cost few requests
	c.retire(existing, made.With(kept), made, b.content)
	_ = c.close(ctx) // what it does not get done is garbage to the next
	return t.describe(made.Current(), b.content), nil
}

// limitCommit bounds the time that a commit takes. done must be called with what came
// of the commit; it tells whose limit it was that ended it.
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

// warnOfFencing tells of the owner that a one-off step after base has fenced.
func (t *Task) warnOfFencing(ctx context.Context, base *history.Committed) {
	if base == nil || base.Released || base.Kind == format.KindDeleted {
		return
	}
	t.job.opts.Logger.WarnContext(ctx, "the task was claimed and not released: if that owner still runs, it is fenced now and must be started again",
		"task", t.Name(), "epoch", base.Epoch, "writer", base.Writer)
}

// into makes a snapshot the checkpoint of manifest m.
func (b *built) into(m *format.Manifest) {
	b.checkpoint.Seq, b.checkpoint.Epoch = m.Seq, m.Epoch
	m.Checkpoint, m.Retained, m.RetainedAt = b.checkpoint, b.retained, b.retainedAt
}

// discardTime bounds the time that a save which failed spends on tidying up,
// when the store does not answer or the user has given up.
const discardTime = 5 * time.Second

// discard deletes segments that no manifest will ever name. It is tidiness:
// what it leaves is garbage to the next writer.
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
