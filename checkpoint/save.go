package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// Save saves one checkpoint of a task that has no long-running owner: it
// claims, commits and releases the task in one manifest. An owner that the
// task may have is fenced by it. If another writer is first, it returns
// ErrConflict and nothing is saved.
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
	retained := t.job.opts.Retention.pick(existing)
	b, err := t.build(ctx, &s, format.SegmentID{Epoch: m.Epoch, Writer: m.Writer}, retained)
	if err != nil {
		t.discard(ctx, b.segments)
		return nil, err
	}
	b.into(m)
	return t.saveStep(ctx, m, b)
}

// into makes a snapshot the checkpoint of manifest m.
func (b *built) into(m *format.Manifest) {
	b.checkpoint.Seq, b.checkpoint.Epoch = m.Seq, m.Epoch
	m.Checkpoint, m.Retained, m.RetainedAt = b.checkpoint, b.retained, b.retainedAt
}

func (t *Task) saveStep(ctx context.Context, m *format.Manifest, b built) (*Checkpoint, error) {
	a, err := newAttempt(m)
	if err != nil {
		return nil, err
	}
	at, err := t.history.create(ctx, a)
	if err != nil {
		if !errors.Is(err, ErrUnknown) {
			t.discard(ctx, b.segments)
		}
		if errors.Is(err, errLost) {
			return nil, fmt.Errorf("%w: nothing was saved, because %w; save again if this state is still wanted", ErrConflict, err)
		}
		return nil, err
	}
	if err := t.history.proveFirst(ctx, m); err != nil {
		return nil, err
	}
	if err := t.confirmSave(ctx, m); err != nil {
		return nil, err
	}
	return t.open(ctx, (&step{m, at}).checkpoint())
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
	return fmt.Errorf("task %q: manifest %d was overtaken by number %d: %w", t.Name(), m.Seq, seq, ErrFenced)
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
