package checkpoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// This file finds out whether someone has deleted manifests. This library never deletes
// the newest one, so some segments that no manifest names prove that one was deleted.
// docs/protocol.md, "Lost manifests", says which.

// requireNew makes sure that a task without manifests never had one. It returns ErrLost if
// segments prove that it had, and ErrGone if somebody has claimed it just now.
func (t *Task) requireNew(ctx context.Context) error {
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
		return nil // there are no segments, or only those of first saves that were killed
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

// stillLost returns which of some segments prove that manifests were lost. The segments
// have higher epochs than the newest manifest had when it was read. They were listed after
// that, and the task may have been claimed in between. So stillLost reads the newest
// manifest again.
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

// errNothingLater means that no segment has a higher epoch than the newest manifest.
var errNothingLater = errors.New("nothing to give up")

// giveUp makes sure that nobody can name a segment with a higher epoch than the newest
// manifest's any more: it claims the task with an epoch that is higher than all of theirs,
// and releases it in the same manifest.
func (t *Task) giveUp(ctx context.Context, fence bool) error {
	_, err := t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		last, err := t.lastEpoch(ctx)
		if err != nil {
			return nil, err
		}
		m := t.log.Follow(base, format.KindClaim, history.SegmentsFirst)
		if last < m.Epoch {
			return nil, errNothingLater
		}
		if err := t.mayFence(base, fence); err != nil {
			return nil, err
		}
		m.Epoch, m.Released = last+1, true
		return m, nil
	})
	if errors.Is(err, errNothingLater) {
		return nil
	}
	return err
}

// lastEpoch returns the highest epoch of all segments, or 0 if there is none.
func (t *Task) lastEpoch(ctx context.Context) (last uint64, err error) {
	for o, err := range t.segments.All(ctx) {
		if err != nil {
			return 0, err
		}
		last = max(last, o.ID.Epoch)
	}
	return last, nil
}

// losses finds out which segments prove that manifests were lost. If the newest manifest
// cannot be read, nothing is proved: that one may name them.
//
// A verification may have read late manifests. So if some segments seem to prove a loss,
// losses makes a dry run of a collection, which notices late manifests.
func (v *verifier) losses(ctx context.Context) error {
	if v.newest == nil || v.unreadable > 0 {
		return nil
	}
	suspect := false
	for id := range v.segments {
		suspect = suspect || !v.named[id] && v.newest.Disproves(id, v.writers)
	}
	if !suspect {
		return nil
	}
	_, left, err := v.task.collect(ctx, CollectOptions{DryRun: true})
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) {
		return nil // damage, which the report has already
	}
	for _, id := range left.lost {
		_, listed := v.segments[id]
		v.lost[id] = listed && !v.named[id]
	}
	return err
}
