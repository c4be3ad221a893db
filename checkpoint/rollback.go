package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// claimAt is Claim with ClaimOptions.At: it rolls back to an older checkpoint.
func (t *Task) claimAt(ctx context.Context, at Ref, began time.Duration) (*Owner, error) {
	c, err := t.intact(ctx, at)
	if err != nil {
		return nil, err
	}
	s, segments, err := t.rollBack(ctx, c, false, true)
	if err != nil {
		return nil, err
	}
	o, err := t.owner(ctx, s, began)
	if err == nil {
		o.segments = segments
	}
	return o, err
}

// RollbackOptions say what a rollback may do. The zero value is a good choice.
type RollbackOptions struct {
	// Fence lets a task be rolled back although it is claimed, which fences its owner.
	Fence bool
}

// Rollback makes an older checkpoint the latest again, as Claim does with
// [ClaimOptions.At], for a task that has no owner. It returns ErrClaimed for a task that is
// claimed, unless the options say otherwise. After ErrUnknown the task may have been rolled
// back, or may yet be; after any other error it was not.
func (t *Task) Rollback(ctx context.Context, at Ref, opts RollbackOptions) (*Checkpoint, error) {
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	c, err := t.intact(ctx, at)
	if err != nil {
		return nil, err
	}
	if _, _, err := t.rollBack(ctx, c, true, opts.Fence); err != nil {
		return nil, err
	}
	return c, nil
}

// intact returns the checkpoint that at means. It returns ErrCorrupt if a segment that the
// checkpoint needs is missing.
func (t *Task) intact(ctx context.Context, at Ref) (*Checkpoint, error) {
	return history.Reread(ctx, func() (*Checkpoint, error) {
		c, err := t.Get(ctx, at)
		if err != nil {
			return nil, err
		}
		return c, t.requireSegments(ctx, c)
	})
}

// rollBack claims the task with an older checkpoint, and releases it in the same manifest
// if the caller wants that. It returns the claim, and how many segments were sent for it.
func (t *Task) rollBack(ctx context.Context, c *Checkpoint, released, fence bool) (s *history.Committed, segments uint32, err error) {
	s, err = t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		if err := t.mayFence(base, fence); err != nil {
			return nil, err
		}
		m, sent, err := t.rollbackManifest(ctx, base, c.Seq)
		if err != nil {
			return nil, err
		}
		m.Released, segments = released, uint32(sent)
		return m, nil
	})
	return s, segments, err
}

// requireSegments returns ErrCorrupt if a segment that c needs is missing. A rollback is
// made because something went wrong, so it must not lead to a checkpoint that cannot be
// restored.
func (t *Task) requireSegments(ctx context.Context, c *Checkpoint) error {
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
	for _, s := range lacks { // those that the listing did not show; it may be incomplete
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

// rollbackManifest returns the claim after base that makes checkpoint number seq the
// current one again, and how many segments were sent for the claim.
func (t *Task) rollbackManifest(ctx context.Context, base *history.Committed, seq uint64) (m *format.Manifest, sent int, err error) {
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
		return m, 0, nil // it is the current one already
	}
	committed, err := t.log.FindCommit(ctx, r)
	if err != nil {
		return nil, 0, err
	}
	m.Checkpoint = committed.Checkpoint
	keys, err := t.retain(ctx, m, base, base.Rest(all), m.Others(all), 0)
	return m, len(keys), err
}
