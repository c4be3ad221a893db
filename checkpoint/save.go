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

// Save saves one checkpoint of a task that has no long-running owner: it
// claims, commits and releases the task in one manifest. An owner that the
// task may have is fenced by it, of which Options.Logger is told. If another
// writer is first, it returns ErrConflict and nothing is saved. After ErrUnknown,
// which an ErrConflict may be too, it may have been saved, or may yet be; after
// any other error nothing was.
func (t *Task) Save(ctx context.Context, s Snapshot) (_ *Checkpoint, err error) {
	defer func() { s.State.failed(err) }()
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	base, existing, err := t.newestAndAll(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.check(existing); err != nil {
		return nil, err
	}
	keep := t.job.opts.Retention
	if err := keep.check(); err != nil {
		return nil, err
	}
	if base == nil {
		if err := t.wantNew(ctx); errors.Is(err, ErrGone) {
			return nil, fmt.Errorf("%w: nothing was saved, because another writer was first; save again if this state is still wanted", ErrConflict)
		} else if err != nil {
			return nil, err
		}
	}
	m := t.history.follow(base, format.KindCommit, newWriter(segmentsFirst))
	m.Released = true
	kept := keep.pick(reckon(existing, t.job.clock()))
	from, err := t.baseline(ctx, base.checkpoint())
	if err != nil {
		return nil, err
	}
	b, err := t.build(ctx, &s, from, format.SegmentID{Epoch: m.Epoch, Writer: m.Writer}, kept)
	if err != nil {
		t.discard(ctx, b.segments)
		return nil, err
	}
	b.into(m)
	made, err := t.saveStep(ctx, m)
	switch {
	case err == nil:
	case errors.Is(err, ErrUnknown):
		return nil, err
	case errors.Is(err, errLost):
		err = fmt.Errorf("%w: nothing was saved, because %w; save again if this state is still wanted", ErrConflict, err)
		fallthrough
	default:
		t.discard(ctx, b.segments)
		return nil, err
	}
	t.warnOfFencing(ctx, base)
	c := newCleaner(ctx, t, made)
	c.swept = true // a save is to cost few requests
	c.retire(existing, made.allCheckpoints(kept), made, b.content)
	_ = c.close(ctx) // what it does not get done is garbage to the next
	return t.describe(made.checkpoint(), b.content), nil
}

// warnOfFencing tells of the owner that a one-off step after base has fenced.
func (t *Task) warnOfFencing(ctx context.Context, base *step) {
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

// saveStep makes m a step of the history, and makes sure that it is one.
func (t *Task) saveStep(ctx context.Context, m *format.Manifest) (*step, error) {
	a, err := newAttempt(m)
	if err != nil {
		return nil, err
	}
	at, err := t.history.create(ctx, a)
	if err == nil {
		a.open = true
		err = t.confirmSave(ctx, a, at)
	}
	switch {
	case err == nil:
		return &step{m, at}, nil
	case errors.Is(err, errOvertaken):
		return nil, fmt.Errorf("%w: %w: %w; ls shows whether it was saved", ErrConflict, ErrUnknown, err)
	case errors.Is(err, ErrUnknown), errors.Is(err, backend.ErrUnsupported):
		return nil, err
	case errors.Is(err, errLost):
		return nil, cmp.Or(t.history.seen(ctx, err), err)
	}
	return nil, a.fail(err)
}

// confirmSave makes sure that a save whose manifest is in the store became a
// part of the history: what was read before it may be old, and the number may
// have been used and deleted meanwhile.
func (t *Task) confirmSave(ctx context.Context, a *attempt, made time.Time) error {
	if a.manifest.Seq <= 2 { // the first writer may have died before it had
		if err := t.history.prove(ctx, a.manifest); err != nil {
			return err
		}
	}
	_, err := t.look(ctx, a, made)
	return err
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
