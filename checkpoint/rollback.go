package checkpoint

import (
	"context"
	"errors"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// ClaimAt is Claim for an owner who goes back to an older checkpoint, named as
// for [Task.At]: it becomes the newest again, and keeps its number. Those that
// came after it stay as retention says, the next commit being the newest one
// then. It returns ErrNoCheckpoint if there is no such checkpoint.
func (t *Task) ClaimAt(ctx context.Context, at string) (*Owner, error) {
	s, segments, err := t.goBack(ctx, at, false)
	if err != nil {
		return nil, err
	}
	o, err := t.owner(ctx, s)
	if err == nil {
		o.segments = segments
	}
	return o, err
}

// Rollback makes an older checkpoint the newest again, as ClaimAt does, for a
// task that has no long-running owner. An owner that the task may have is
// fenced by it.
func (t *Task) Rollback(ctx context.Context, at string) (*Checkpoint, error) {
	s, _, err := t.goBack(ctx, at, true)
	if err != nil {
		return nil, err
	}
	return t.open(ctx, s.checkpoint())
}

// goBack claims the task with an older checkpoint, and returns its step and how
// many segments were sent for it.
func (t *Task) goBack(ctx context.Context, at string, released bool) (s *step, segments uint32, err error) {
	if _, err := t.At(ctx, at); err != nil { // whole, as far as can be told
		return nil, 0, err
	}
	var sent []string
	s, err = t.history.claim(ctx, func(base *step) (m *format.Manifest, err error) {
		t.discard(ctx, sent) // of an attempt that lost
		m, sent, err = t.backTo(ctx, base, at)
		if m != nil {
			m.Released = released
		}
		return m, err
	})
	if err != nil && !errors.Is(err, ErrUnknown) {
		t.discard(ctx, sent)
	}
	return s, uint32(len(sent)), err
}

// backTo returns the manifest after base by which a new writer goes back, and
// the keys of the segments that were sent for it.
func (t *Task) backTo(ctx context.Context, base *step, at string) (*format.Manifest, []string, error) {
	all, err := t.all(ctx, base)
	if err != nil {
		return nil, nil, err
	}
	r, err := t.find(base, all, at)
	if err != nil {
		return nil, nil, err
	}
	m := t.history.follow(base, format.KindClaim, newWriter())
	if r.Seq == m.Checkpoint.Seq {
		return m, nil, nil // it is there already
	}
	committed, err := t.readRetained(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	m.Checkpoint = committed.Checkpoint
	p := newPacker(ctx, t, catalog.New(0), format.SegmentID{Epoch: m.Epoch, Writer: m.Writer})
	others := (&step{Manifest: m}).others(all)
	if m.Retained, m.RetainedAt, err = p.placeRetained(t.job.codec, others); err != nil {
		p.abandon()
	} else {
		err = p.finish()
	}
	return m, p.keys(), err
}
