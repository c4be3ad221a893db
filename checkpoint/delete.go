package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// DeleteOptions say how a task is deleted. The zero value is a good choice.
type DeleteOptions struct {
	// Fence lets a task be deleted although it is claimed, which fences its owner.
	Fence bool
	// DryRun changes nothing, and only finds out what would be deleted, or why not.
	DryRun bool
	// After names tasks that a dry run takes to be deleted already: who deletes several
	// tasks deletes forks first.
	After []string
}

// Delete deletes a task: all its checkpoints, savepoints among them. It cannot be undone.
// One small object stays for ever, which says that the task was deleted, so that numbers
// of its earlier life are never used again: a task may live again under the same name.
//
// It returns ErrNoCheckpoint if there is no such task, ErrClaimed for a task that is
// claimed, unless the options say otherwise, and ErrHeld if forks need its data. After
// ErrUnknown the task may have been deleted, or may yet be. If CollectResult.Deleted is set,
// it was deleted, whatever the error, and what is left is for the next collection. After any
// other error it was not. Manifests that are younger than the fence window are always left for the first
// collection after that.
func (t *Task) Delete(ctx context.Context, opts DeleteOptions) (CollectResult, error) {
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return CollectResult{}, err
	}
	defer end()
	if opts.DryRun {
		return t.deleteNothing(ctx, opts)
	}
	before, err := t.makeDeleted(ctx, opts)
	if held := (*heldError)(nil); errors.As(err, &held) && !errors.Is(err, ErrUnknown) {
		if err := t.dropNeedlessHolds(ctx, held.held, false); err != nil {
			return CollectResult{}, fmt.Errorf("%w; %w", held, err)
		}
		before, err = t.makeDeleted(ctx, opts)
	}
	if err != nil {
		return CollectResult{}, t.explain(ctx, err)
	}
	done, _, err := t.collect(ctx, CollectOptions{})
	done.Deleted = true
	if s := before.Source; s != nil {
		err = errors.Join(err, t.dropHoldOf(ctx, s))
	}
	return done, err
}

// makeDeleted makes the manifest which says that the task is deleted. It returns the one
// before.
func (t *Task) makeDeleted(ctx context.Context, opts DeleteOptions) (before *history.Committed, err error) {
	_, err = t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		before = base
		if err := t.mayDelete(ctx, base, opts); err != nil {
			return nil, err
		}
		return t.deletion(base), nil
	})
	return before, err
}

// deletion returns the manifest after base which says that the task is deleted. base may
// be nil.
func (t *Task) deletion(base *history.Committed) *format.Manifest {
	m := t.log.Follow(base, format.KindDeleted, history.SegmentsFirst)
	m.Released = true
	m.Checkpoint, m.Retained, m.RetainedAt, m.Pieces, m.Edits, m.Source = nil, nil, nil, nil, format.Edits{}, nil
	return m
}

// mayDelete makes sure that the task may be deleted after base, which may be nil.
func (t *Task) mayDelete(ctx context.Context, base *history.Committed, opts DeleteOptions) error {
	switch {
	case base == nil:
		if err := t.requireNew(ctx); err != nil {
			return err
		}
		return fmt.Errorf("task %q does not exist: %w", t.Name(), ErrNoCheckpoint)
	case base.Kind == format.KindDeleted:
		return fmt.Errorf("task %q was deleted: %w", t.Name(), ErrNoCheckpoint)
	case len(base.Held) > 0:
		return &heldError{task: t.Name(), held: base.Held}
	}
	return t.mayFence(base, opts.Fence)
}

// deleteNothing is Delete without its effects.
func (t *Task) deleteNothing(ctx context.Context, opts DeleteOptions) (all CollectResult, err error) {
	base, err := t.log.Newest(ctx)
	if err != nil {
		return all, err
	}
	if base != nil {
		held := base.Held
		if base.Held, err = t.neededHolds(ctx, t.heldAfter(ctx, held, opts.After)); err != nil {
			return all, fmt.Errorf("%w; %w", &heldError{task: t.Name(), held: held}, err)
		}
	}
	if err := t.mayDelete(ctx, base, opts); err != nil {
		return all, t.explain(ctx, err)
	}
	now := t.job.clock()
	for o, err := range t.job.store.List(ctx, t.log.Dir+"/", "") {
		if err != nil {
			return all, err
		}
		if _, ok := format.ParseSegmentKey(t.log.Dir, o.Key); ok {
			all.add(CollectResult{Segments: 1, Bytes: o.Size})
		} else if _, _, ok := format.ParseManifestKey(o.Key); ok && now.Sub(o.ModTime) > FenceWindow {
			all.add(CollectResult{Manifests: 1, Bytes: o.Size})
		}
	}
	return all, nil
}

// heldAfter returns what is held once the tasks of these names are deleted. A deletion takes
// the next number of its task, and so ends a hold for a fork that has that number or an
// earlier one.
func (t *Task) heldAfter(ctx context.Context, held format.Holds, names []string) format.Holds {
	return slices.DeleteFunc(slices.Clone(held), func(h format.Hold) bool {
		if !slices.Contains(names, h.Task) {
			return false
		}
		_, s, _, err := t.forkOf(ctx, h)
		return err == nil && s.Seq+1 >= h.First
	})
}

// dropHoldOf makes a source hold nothing for this task any more.
func (t *Task) dropHoldOf(ctx context.Context, s *format.Source) error {
	source, err := t.job.Task(s.Task)
	if err == nil {
		err = source.dropHold(ctx, s.Fork)
	}
	if err != nil {
		err = fmt.Errorf("checkpoint %d of task %q stays held until the next collection: %w", s.Seq, s.Task, err)
	}
	return err
}
