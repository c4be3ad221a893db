package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// DetachOptions say how a fork is detached. The zero value is a good choice.
type DetachOptions struct {
	// Fence lets a fork be detached although it is claimed, which fences its owner.
	Fence bool
	// Progress, if it is not nil, is called as in a [Snapshot].
	Progress func(Progress)
}

// Detach makes a fork independent of the task that it was forked from, which then need not
// keep data for it any more. It saves the latest checkpoint anew, with all its data, and
// drops the other checkpoints that need another task's data. Savepoints are not dropped:
// if one of these is such a checkpoint, Detach returns ErrConflict and does nothing; take
// its name away first.
//
// It reads and writes as much data as the state has. It returns the latest checkpoint,
// which is the same as before if the task needs no other task's data. It returns ErrClaimed
// for a fork that is claimed, unless the options say otherwise; its other errors are those
// of [Task.Save] and [Task.Prune]. Detach may be called again after any of them.
func (t *Task) Detach(ctx context.Context, opts DetachOptions) (*Checkpoint, error) {
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	base, all, err := t.log.NewestAndAll(ctx)
	if err != nil {
		return nil, err
	}
	if base.Current() == nil {
		return nil, fmt.Errorf("task %q has no checkpoint: %w", t.Name(), ErrNoCheckpoint)
	}
	source := base.Source
	if err := foreignSavepoints(t.Name(), all); err != nil {
		return nil, err
	}
	if all[0].Foreign {
		if err := t.saveDetached(ctx, opts); err != nil {
			return nil, err
		}
	}
	if source != nil {
		if err := t.dropForeign(ctx); err != nil {
			return nil, err
		}
		if err := t.dropHoldOf(ctx, source); err != nil { // the fork is detached all the same
			t.job.opts.Logger.WarnContext(ctx, "the fork is detached, and its source does not know it yet", "task", t.Name(), "source", source.Task, "err", err)
		}
	}
	return t.Latest(ctx)
}

// foreignSavepoints returns ErrConflict if a savepoint needs another task's data.
func foreignSavepoints(task string, list []format.Retained) error {
	var names []string
	for _, r := range list {
		if r.Foreign && r.Savepoint != "" {
			names = append(names, strconv.Quote(r.Savepoint))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("%w: task %q shares the data of savepoint %s with the task that it was forked from; remove that name first, so that the checkpoint may be dropped",
		ErrConflict, task, strings.Join(names, ", "))
}

// saveDetached saves the latest checkpoint anew, with all its data.
func (t *Task) saveDetached(ctx context.Context, opts DetachOptions) error {
	c, err := t.Latest(ctx)
	if err != nil {
		return err
	}
	fsys, err := c.FS(ctx)
	if err != nil {
		return err
	}
	state := FS(fsys).Full()
	if owned, err := c.owned(ctx); err != nil {
		return err
	} else if owned {
		state = state.FileOwners()
	}
	_, err = t.Save(ctx, Snapshot{
		Offsets: c.Offsets, OffsetsAre: c.OffsetsAre, Labels: c.Labels, State: state, Progress: opts.Progress,
	}, SaveOptions{Fence: opts.Fence})
	if errors.Is(err, ErrUnknown) {
		return err
	}
	if err != nil { // to the save, what is missing in the store looks like a change of the state
		err = cmp.Or(t.requireSegments(ctx, c), err)
	}
	return err
}

// owned reports whether the checkpoint has the owners of its files.
func (c *Checkpoint) owned(ctx context.Context) (bool, error) {
	entries, err := c.Entries(ctx)
	return len(entries) > 0 && entries[0].UID >= 0, err
}

// dropForeign drops all checkpoints but the latest that need another task's data, and
// deletes what only they needed.
func (t *Task) dropForeign(ctx context.Context) error {
	var dropped []format.Retained
	var list []format.SegmentID
	err := t.log.Amend(ctx, func(base *history.Committed, all []format.Retained, _ bool) ([]format.Retained, error) {
		list = append(list, base.ListSegments()...)
		if all[0].Foreign {
			return nil, fmt.Errorf("%w: task %q has gone on meanwhile, with data of the task that it was forked from; detach it again", ErrConflict, t.Name())
		}
		if err := foreignSavepoints(t.Name(), all); err != nil {
			return nil, err
		}
		foreign := func(r format.Retained) bool { return r.Foreign && !base.Held.Has(r.Seq) }
		kept := slices.DeleteFunc(slices.Clone(all), foreign)
		if slices.ContainsFunc(kept, func(r format.Retained) bool { return r.Foreign }) {
			return nil, &heldError{task: t.Name(), held: base.Held}
		}
		dropped = history.Dropped(all, kept)
		return kept, nil
	})
	if err != nil || len(dropped) == 0 {
		return err
	}
	_, _, err = t.deleteDropped(ctx, dropped, list)
	if errors.Is(err, ErrCorrupt) {
		err = nil // what is left is garbage
	}
	return err
}
