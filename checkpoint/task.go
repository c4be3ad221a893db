package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
	"github.com/holdfast-io/holdfast/checkpoint/internal/segment"
)

// A Task is one unit of a job that checkpoints, with one history. It may be
// used from many goroutines at once.
type Task struct {
	job      *Job
	log      *history.Log
	segments *segment.Reader

	toldUnkept atomic.Bool // the log has been told that attributes of files are not kept
}

// Name returns the task's name.
func (t *Task) Name() string { return t.log.Task }

// Status is what a task's newest manifest says.
type Status struct {
	Manifest  uint64      // number of the newest manifest; 0 if the task was never claimed
	Epoch     uint64      // of its writer
	Writer    string      // a random id of its writer; each claim has another one
	WrittenBy string      // what its writer says of itself: see Options.WrittenBy
	Claimed   bool        // its writer has not released the task; whether it still runs is not known
	Deleted   bool        // the task was deleted, and not claimed since
	Latest    *Checkpoint // nil if there is none

	ForkedFrom *ForkInfo  // the task that this one was forked from, and whose data it still needs; or nil
	Forks      []ForkInfo // forks that need data of this task
}

// Status reads the newest manifest, in two requests however long the history
// is (three if the state is large). With an error, Latest is nil, and the other fields are
// zero unless the manifest itself could be read. If there is no manifest, but segments
// show that there must have been one, it returns ErrLost.
func (t *Task) Status(ctx context.Context) (Status, error) {
	return history.Reread(ctx, func() (Status, error) {
		s, err := t.log.Newest(ctx)
		if err == nil && s == nil {
			err = t.requireNew(ctx)
		}
		if err != nil || s == nil {
			return Status{}, err
		}
		status := Status{
			Manifest: s.Seq, Epoch: s.Epoch, Writer: s.Writer.String(),
			WrittenBy: s.WrittenBy, Claimed: s.Claimed(),
			Deleted: s.Kind == format.KindDeleted,
		}
		status.ForkedFrom, status.Forks = forks(s.Manifest)
		if c := s.Current(); c != nil {
			status.Latest, err = t.open(ctx, c)
		}
		return status, err
	})
}

// Latest returns the newest checkpoint, for as many requests as Status. It
// returns ErrNoCheckpoint if there is none.
func (t *Task) Latest(ctx context.Context) (*Checkpoint, error) {
	status, err := t.Status(ctx)
	if err == nil && status.Latest == nil {
		err = fmt.Errorf("task %q has no checkpoint: %w", t.Name(), ErrNoCheckpoint)
	}
	return status.Latest, err
}

// Get returns the checkpoint that r means. It returns ErrNoCheckpoint if it was never
// committed or is not retained any more. For the latest it sends as many requests as
// Status; for another one, one or two more.
func (t *Task) Get(ctx context.Context, r Ref) (*Checkpoint, error) {
	if r == (Ref{}) {
		return t.Latest(ctx)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return history.Reread(ctx, func() (*Checkpoint, error) {
		s, all, damage, err := t.log.IntactAndAll(ctx)
		if err != nil {
			return nil, err
		}
		c, err := t.find(s, all, r)
		if damage != nil && errors.Is(err, ErrNoCheckpoint) {
			return nil, damage // it may be in what cannot be read
		}
		if err != nil {
			return nil, err
		}
		return t.openRetained(ctx, s, c)
	})
}

// List returns all checkpoints that exist: first the current one, and then the others by
// when each was last the current one. That is the order of their numbers, highest first,
// unless the task was rolled back. It reads the manifest of each.
// It returns ErrNoCheckpoint if the task was never claimed. If some are damaged,
// it returns the others, and the errors joined.
func (t *Task) List(ctx context.Context) ([]*Checkpoint, error) {
	return history.Reread(ctx, func() ([]*Checkpoint, error) {
		s, all, damage, err := t.log.IntactAndAll(ctx)
		if err != nil {
			return nil, err
		}
		if s == nil {
			return nil, fmt.Errorf("task %q does not exist: %w", t.Name(), ErrNoCheckpoint)
		}
		list, err := t.openAll(ctx, s, all)
		return list, errors.Join(damage, err)
	})
}

// openAll opens the checkpoints that manifest s lists. It leaves out those that have been
// retired since, but returns ErrGone if s's own is one of them.
func (t *Task) openAll(ctx context.Context, s *history.Committed, all []format.Retained) ([]*Checkpoint, error) {
	list, damage := make([]*Checkpoint, len(all)), make([]error, len(all))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(t.job.opts.Requests)
	for i, r := range all {
		group.Go(func() (err error) {
			list[i], err = t.openRetained(ctx, s, r)
			switch {
			case errors.Is(err, ErrGone) && i > 0:
				return nil // retired meanwhile, so it does not exist any more
			case errors.Is(err, ErrCorrupt), errors.Is(err, ErrVersion):
				damage[i] = err
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(c *Checkpoint) bool { return c == nil })
	return list, errors.Join(damage...)
}

// openRetained opens a checkpoint that manifest s lists. It returns ErrGone if it
// was retired since s was read.
func (t *Task) openRetained(ctx context.Context, s *history.Committed, r format.Retained) (*Checkpoint, error) {
	if c := s.Current(); c != nil && c.Seq == r.Seq {
		return t.open(ctx, c)
	}
	m, err := t.log.FindCommit(ctx, r)
	if err != nil {
		return nil, err
	}
	return t.open(ctx, m.Checkpoint)
}
