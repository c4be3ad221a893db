package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// Save saves one checkpoint of a task that has no long-running owner: it
// claims, commits and releases the task in one manifest. An owner that the
// task may have is fenced by it. If another writer is first, it returns
// ErrConflict and nothing is saved. After ErrUnknown it may have been saved, or
// may yet be; after any other error nothing was.
func (t *Task) Save(ctx context.Context, s Snapshot) (*Checkpoint, error) {
	base, existing, err := t.newestAndAll(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.check(existing); err != nil {
		return nil, err
	}
	m := t.history.follow(base, format.KindCommit, newWriter())
	m.Released = true
	kept := t.job.opts.Retention.pick(existing)
	b, err := t.build(ctx, &s, format.SegmentID{Epoch: m.Epoch, Writer: m.Writer}, kept)
	if err != nil {
		t.discard(ctx, b.segments)
		return nil, err
	}
	b.into(m)
	made, err := t.saveStep(ctx, m)
	if err != nil {
		if !errors.Is(err, ErrUnknown) {
			t.discard(ctx, b.segments)
		}
		if errors.Is(err, errLost) {
			return nil, fmt.Errorf("%w: nothing was saved, because %w; save again if this state is still wanted", ErrConflict, err)
		}
		return nil, err
	}
	c := newCleaner(t)
	c.retire(existing, made.allCheckpoints(kept), made, b.content)
	c.close()
	return t.describe(made.checkpoint(), b.content), nil
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
	if err != nil {
		return nil, err
	}
	a.open = true // it is in the store
	err = t.history.proveFirst(ctx, m)
	if errors.Is(err, backend.ErrUnsupported) {
		return nil, err
	}
	if err == nil {
		err = t.confirmSave(ctx, m)
	}
	if err != nil && !errors.Is(err, errLost) {
		return nil, a.fail(err)
	}
	return &step{m, at}, err
}

// confirmSave makes sure that a one-off save became part of the history, which
// it did not if this process slept while its number was used and deleted.
func (t *Task) confirmSave(ctx context.Context, m *format.Manifest) error {
	seq, _, err := t.history.newestSeq(ctx)
	if err != nil || seq == m.Seq {
		return err
	}
	_, all, err := t.newestAndAll(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(r format.Retained) bool { return r.Seq == m.Seq }) {
		return nil // others have gone on from it
	}
	return fmt.Errorf("%w: the task has gone on to manifest %d", errLost, seq)
}

// discard deletes segments that no manifest will ever name. It is tidiness:
// what it leaves is garbage to the next writer.
func (t *Task) discard(ctx context.Context, keys []string) {
	if len(keys) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx)
	if err := t.job.store.Delete(ctx, keys...); err != nil {
		t.job.opts.Logger.WarnContext(ctx, "segments of a failed save remain", "task", t.Name(), "segments", len(keys), "err", err)
	}
}
