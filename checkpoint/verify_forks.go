package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// This file verifies what a fork needs of other tasks, and what forks need of this one. The fork's newest manifest was read
// first, then comes what its source holds, and then the others' segments are listed. If
// something is missing, the fork is read again: it may need it no more.

// sources makes sure that the task's source holds what it needs, and lists the segments of
// other tasks.
func (v *verifier) sources(ctx context.Context) error {
	if err := v.held(ctx); err != nil {
		return err
	}
	for _, task := range v.otherTasks() {
		segments, err := v.task.segments.Of(task)
		if err != nil {
			return err
		}
		for o, err := range segments.All(ctx) {
			if err != nil {
				return err
			}
			v.others[o.ID] = o.Size
		}
	}
	return nil
}

// held notes if the source does not hold what this task needs: its data may be deleted.
// It is no damage yet.
func (v *verifier) held(ctx context.Context) error {
	if v.newest == nil || v.newest.Source == nil {
		return nil
	}
	s := v.newest.Source
	is, err := v.task.holds(ctx, s)
	if is || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) {
		return nil // what is wrong with the source is for its own verification to say
	}
	if err != nil {
		return fmt.Errorf("task %q is a fork: %w", v.task.Name(), err)
	}
	// The fork may need it no more since it was read.
	now, err := history.Reread(ctx, func() (*history.Committed, error) { return v.task.log.NewestForCertain(ctx) })
	if err == nil && now.Source != nil && now.Source.Fork == s.Fork {
		v.unheld = &ForkInfo{s.Task, s.Seq}
	}
	return err
}

// forks finds out which forks need what is held for them no more.
func (v *verifier) forks(ctx context.Context) error {
	if v.newest == nil || v.unreadable > 0 {
		return nil
	}
	for _, h := range v.newest.Held {
		need, err := v.task.needOf(ctx, h)
		switch {
		case errors.Is(err, ErrCorrupt), errors.Is(err, ErrVersion), errors.Is(err, fs.ErrPermission):
			continue // what is wrong with the fork is for its own verification to say
		case err != nil:
			return fmt.Errorf("task %q holds checkpoint %d for task %q: %w", v.task.Name(), h.Seq, h.Task, err)
		case need != needed && need != making:
			v.needless = append(v.needless, NeedlessHold{ForkInfo{h.Task, h.Seq}, need == removed})
		}
	}
	return nil
}

// holds reports whether a source holds what it is to hold.
func (t *Task) holds(ctx context.Context, s *format.Source) (bool, error) {
	source, err := t.job.Task(s.Task)
	if err != nil {
		return false, err
	}
	base, err := history.Reread(ctx, func() (*history.Committed, error) { return source.log.NewestForCertain(ctx) })
	if err != nil {
		return false, err
	}
	return base.Held.HasFork(s.Fork), nil
}

// otherTasks returns the tasks whose segments this task's checkpoints need.
func (v *verifier) otherTasks() []string {
	tasks := make(map[string]bool)
	for _, s := range v.subjects {
		if s.checkpoint == nil {
			continue
		}
		for _, seg := range s.checkpoint.content.Segments {
			if seg.Task != "" {
				tasks[seg.Task] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(tasks))
}

// sizesOf returns the map in which the size of a segment is, if it exists.
func (v *verifier) sizesOf(seg format.Segment) map[format.SegmentID]int64 {
	if seg.Task != "" {
		return v.others
	}
	return v.segments
}
