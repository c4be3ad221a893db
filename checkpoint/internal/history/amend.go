package history

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/cause"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file changes a task beside its owner. An amendment is a manifest by someone who
// is not the owner: it repeats the checkpoint, the epoch and the writer of the manifest
// that it follows, and says which other checkpoints are retained and how they are named.
// The owner finds its next number taken, and continues from the amendment.

// A Change is what an amendment makes of all checkpoints that base lists, the current one
// first: it returns the list as it is to be, in the same order. The current one must be
// in it. again says that an earlier amendment of the same change may have been made, so
// that what is asked for may be there already.
type Change func(base *Committed, all []format.Retained, again bool) ([]format.Retained, error)

// Amend changes the retained list of the newest manifest. After ErrUnknown the change may
// have been made, or may yet be; after any other error it was not. Amend returns
// ErrNoCheckpoint if the task has none. change is called again when another writer was
// first.
func (l *Log) Amend(ctx context.Context, change Change) error {
	return l.compete(ctx, func(again bool) error {
		return l.tryAmend(ctx, func(base *Committed, all []format.Retained) ([]format.Retained, format.Holds, error) {
			after, err := change(base, all, again)
			return after, base.Held, err
		})
	})
}

// AmendHolds is Amend for what is held for forks: change returns what is to be held.
func (l *Log) AmendHolds(ctx context.Context, change func(base *Committed, all []format.Retained) (format.Holds, error)) error {
	return l.compete(ctx, func(bool) error {
		return l.tryAmend(ctx, func(base *Committed, all []format.Retained) ([]format.Retained, format.Holds, error) {
			held, err := change(base, all)
			return all, held, err
		})
	})
}

// tryAmend makes one attempt. change returns the list and the holds as they are to be.
func (l *Log) tryAmend(ctx context.Context, change func(*Committed, []format.Retained) ([]format.Retained, format.Holds, error)) error {
	base, before, err := l.NewestAndAll(ctx)
	if err != nil {
		return err
	}
	if base.Current() == nil {
		return l.Refuse(ctx, base, fmt.Errorf("task %q has no checkpoint: %w", l.Task, cause.ErrNoCheckpoint))
	}
	after, held, err := change(base, before)
	if err != nil || slices.Equal(before, after) && slices.Equal(base.Held, held) {
		return l.Refuse(ctx, base, err)
	}
	m, err := l.amendment(base, before, after)
	if err == nil {
		m.Held = held
	}
	if err != nil {
		return l.Refuse(ctx, base, err)
	}
	a, err := l.NewAttempt(m)
	if err != nil {
		return err
	}
	made, err := l.create(ctx, a)
	if err != nil {
		return err
	}
	return l.confirmAmendment(ctx, a, made)
}

// amendment returns the manifest that follows base and makes after of its list.
func (l *Log) amendment(base *Committed, before, after []format.Retained) (*format.Manifest, error) {
	m := &format.Manifest{
		Kind: format.KindAmend, Task: l.Task, Seq: base.Seq + 1, Base: base.AsBase(),
		Epoch: base.Epoch, Writer: base.Writer, WrittenBy: base.WrittenBy, Released: base.Released,
		Checkpoint: base.Current(), Source: base.Source,
	}
	m.KeepSource(after)
	m.Checkpoint.Rename(after[0])
	small, err := format.FitsInline(after[1:])
	if err != nil {
		return nil, err
	}
	if small { // what lay in pieces may be small now
		m.Retained = after[1:]
		return m, nil
	}
	layout := base.Place(before[1:], after[1:])
	m.Retained, m.Edits = layout.Inline, layout.Edits()
	if len(layout.Pieces) > 0 {
		m.RetainedAt, m.Pieces = base.RetainedAt, base.Pieces
	}
	if err := m.Edits.Fit(m.Retained); err != nil { // the owner's own manifests must fit as well
		return nil, fmt.Errorf("task %q: %w: change less at once, or wait for the next commits of the task's owner", l.Task, err)
	}
	return m, nil
}

// confirmAmendment makes sure that an amendment is in the history, which is in the store
// since the time that the reply told: between the read and the write, its number may have
// been used and deleted (I5). If others have continued from that number, the next
// manifest tells whether it was made from this amendment. If that cannot be known, the
// error is ErrOvertaken.
func (l *Log) confirmAmendment(ctx context.Context, a *Attempt, replied time.Time) error {
	a.inDoubt = true
	m := a.Manifest
	seq, at, err := l.newestFrom(ctx, m.Seq)
	if err == nil && seq == m.Seq {
		err = l.checkTimes(seq, replied, at)
	}
	if err != nil {
		return a.fail(err)
	}
	if seq == m.Seq {
		return nil
	}
	if l.wasFollowed(ctx, m, replied) {
		return nil
	}
	return a.taken(fmt.Sprintf("manifest %d is the newest", seq))
}

// wasFollowed reports whether the next manifest was made from m, which so was committed. m
// is in the store since the time that the reply told.
func (l *Log) wasFollowed(ctx context.Context, m *format.Manifest, replied time.Time) bool {
	next, err := l.Read(ctx, m.Seq+1)
	return err == nil && next.Base != nil && next.Base.Token == m.Token && SameObject(next.Base.Time, replied)
}
