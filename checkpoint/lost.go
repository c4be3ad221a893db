package checkpoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// This file finds out that someone has deleted manifests. Nobody who keeps to the
// protocol deletes the newest one, so segments that none can explain prove it.

// wantNew makes sure that the task, of which no manifest is listed, never had one. It
// returns ErrLost if it had, and ErrGone if it has one now.
func (t *Task) wantNew(ctx context.Context) error {
	var left CollectResult
	had := false
	for o, err := range t.segments.All(ctx) {
		if err != nil {
			return err
		}
		left.add(CollectResult{Segments: 1, Bytes: o.Size})
		had = had || history.None().Disproves(o.ID, nil)
	}
	if !had {
		return nil // or only what first saves have left that were killed
	}
	seq, _, err := t.log.NewestSeq(ctx)
	if err != nil {
		return err
	}
	if seq > 0 {
		return fmt.Errorf("task %q has been claimed just now: %w", t.Name(), ErrGone)
	}
	return fmt.Errorf("task %q has no manifest, and %s that only a task with manifests can have: "+
		"someone has deleted these, or the store does not list them. "+
		"Bring them back, from the bucket's versions or a backup, or use another name for the task; "+
		"'holdfast gc --lost' gives up what is left: %w",
		t.Name(), left.inSegments(), ErrLost)
}

// inSegments says how many segments there are, and how large.
func (c CollectResult) inSegments() string {
	if c.Segments == 1 {
		return fmt.Sprintf("a segment (%d bytes)", c.Bytes)
	}
	return fmt.Sprintf("%d segments (%d bytes)", c.Segments, c.Bytes)
}

// stillLost returns those of a list of segments that are not explained yet. They were
// of later epochs than the newest manifest, when that was read; then they were listed,
// and the task may have been claimed in between.
func (t *Task) stillLost(ctx context.Context, later []format.SegmentID) (lost []format.SegmentID, err error) {
	if len(later) == 0 {
		return nil, nil
	}
	s, err := history.Reread(ctx, func() (*history.Committed, error) { return t.log.NewestForCertain(ctx) })
	if err != nil {
		return nil, err
	}
	for _, id := range later {
		if id.Epoch > s.Epoch && s.Disproves(id, nil) {
			lost = append(lost, id)
		}
	}
	return lost, nil
}

// errNothingLater means that no segment is of a later epoch than the newest manifest's.
var errNothingLater = errors.New("nothing to give up")

// giveUp makes sure that nobody names a segment of a later epoch than the newest
// manifest's any more: it claims the task with one that is later than all of them, and
// releases it.
func (t *Task) giveUp(ctx context.Context, fence bool) error {
	_, err := t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		last, err := t.lastEpoch(ctx)
		if err != nil {
			return nil, err
		}
		m := t.log.Follow(base, format.KindClaim, history.SegmentsFirst)
		switch {
		case last < m.Epoch:
			return nil, errNothingLater
		case base != nil && base.Claimed() && !fence:
			return nil, fmt.Errorf("task %q (epoch %d, writer %s): %w", t.Name(), base.Epoch, base.Writer, ErrClaimed)
		}
		m.Epoch, m.Released = last+1, true
		return m, nil
	})
	if errors.Is(err, errNothingLater) {
		return nil
	}
	return err
}

// lastEpoch returns the last epoch that a segment has, or 0 if there is none.
func (t *Task) lastEpoch(ctx context.Context) (last uint64, err error) {
	for o, err := range t.segments.All(ctx) {
		if err != nil {
			return 0, err
		}
		last = max(last, o.ID.Epoch)
	}
	return last, nil
}

// losses finds out which segments prove that manifests were lost. If the newest
// manifest is damaged, it may explain them.
//
// A verification that is overtaken may have read manifests that never were steps. So
// if there is a suspicion, a collection is tried, which makes sure of that.
func (v *verifier) losses(ctx context.Context) error {
	if v.step == nil || v.unreadable > 0 {
		return nil
	}
	suspect := false
	for id := range v.segments {
		suspect = suspect || !v.named[id] && v.step.Disproves(id, v.writers)
	}
	if !suspect {
		return nil
	}
	_, left, err := v.task.collect(ctx, CollectOptions{DryRun: true})
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) {
		return nil // damage, of which the report tells
	}
	for _, id := range left.lost {
		_, listed := v.segments[id]
		v.lost[id] = listed && !v.named[id]
	}
	return err
}
