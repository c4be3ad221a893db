package checkpoint

import (
	"context"
	"errors"
	"io/fs"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// claimAt is Claim for an owner who goes back to an older checkpoint.
func (t *Task) claimAt(ctx context.Context, at Ref) (*Owner, error) {
	c, err := t.intact(ctx, at)
	if err != nil {
		return nil, err
	}
	s, segments, err := t.goBack(ctx, c, false)
	if err != nil {
		return nil, err
	}
	o, err := t.owner(ctx, s)
	if err == nil {
		o.segments = segments
	}
	return o, err
}

// Rollback makes an older checkpoint the latest again, as Claim does with
// [ClaimOptions.At], for a task that has no long-running owner. An owner that the task
// may have is fenced by it, of which Options.Logger is told. After ErrUnknown the task
// may have gone back, or may yet; after any other error it has not.
func (t *Task) Rollback(ctx context.Context, at Ref) (*Checkpoint, error) {
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	c, err := t.intact(ctx, at)
	if err != nil {
		return nil, err
	}
	if _, _, err := t.goBack(ctx, c, true); err != nil {
		return nil, err
	}
	return c, nil
}

// intact returns the checkpoint to go back to, which at means, if no segment that
// it needs is missing.
func (t *Task) intact(ctx context.Context, at Ref) (*Checkpoint, error) {
	return history.Reread(ctx, func() (*Checkpoint, error) {
		c, err := t.Get(ctx, at)
		if err != nil {
			return nil, err
		}
		return c, t.wantSegments(ctx, c)
	})
}

// goBack claims the task with an older checkpoint, and returns its step and how
// many segments were sent for it.
func (t *Task) goBack(ctx context.Context, c *Checkpoint, released bool) (s *history.Committed, segments uint32, err error) {
	var before *history.Committed
	s, err = t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		before = base
		m, sent, err := t.backTo(ctx, base, c.Seq)
		if err != nil {
			return nil, err
		}
		m.Released, segments = released, uint32(sent)
		return m, nil
	})
	if err == nil && released {
		t.warnOfFencing(ctx, before)
	}
	return s, segments, err
}

// wantSegments returns ErrCorrupt if a segment that c needs is not there. Who
// goes back does so because something went wrong: it must not get worse.
func (t *Task) wantSegments(ctx context.Context, c *Checkpoint) error {
	lacks := make(map[format.SegmentID]format.Segment)
	for _, s := range c.content.Segments {
		lacks[s.ID] = s
	}
	if len(lacks) == 0 {
		return nil
	}
	for o, err := range t.segments.All(ctx) {
		if err != nil {
			return err
		}
		delete(lacks, o.ID)
	}
	for _, s := range lacks { // as far as a listing tells
		err := t.segments.Probe(ctx, s)
		if errors.Is(err, fs.ErrNotExist) {
			err = t.log.Missing(ctx, c.Seq, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// backTo returns the manifest after base by which a new writer goes back, and
// how many segments were sent for it.
func (t *Task) backTo(ctx context.Context, base *history.Committed, seq uint64) (m *format.Manifest, sent int, err error) {
	all, err := t.log.All(ctx, base)
	if err != nil {
		return nil, 0, err
	}
	r, err := t.find(base, all, Seq(seq))
	if err != nil {
		return nil, 0, err
	}
	m = t.log.Follow(base, format.KindClaim, history.SegmentsFirst)
	if r.Seq == m.Checkpoint.Seq {
		return m, 0, nil // it is there already
	}
	committed, err := t.log.Commit(ctx, r)
	if err != nil {
		return nil, 0, err
	}
	m.Checkpoint = committed.Checkpoint
	sent, err = t.retain(ctx, m, m.Others(all))
	return m, sent, err
}

// retain makes list the checkpoints that m, a new writer's first manifest,
// retains, and returns how many segments were sent for it.
//
// Once m has been sent as well, they are nobody's to delete, however that went:
// it may be a step, and another writer may have gone on from it. If it is none,
// they are garbage to the next writer.
func (t *Task) retain(ctx context.Context, m *format.Manifest, list []format.Retained) (sent int, err error) {
	p := newPacker(ctx, t, catalog.New(0), format.SegmentID{Epoch: m.Epoch, Writer: m.Writer})
	if m.Retained, m.RetainedAt, err = p.placeRetained(t.job.codec, list); err != nil {
		p.abandon()
	} else {
		err = p.finish()
	}
	if err != nil {
		t.discard(ctx, p.keys())
	}
	return len(p.sent), err
}
