package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
}

// Name returns the task's name.
func (t *Task) Name() string { return t.log.Task }

// Status is what a task's newest manifest says.
type Status struct {
	Seq     uint64      // of the newest manifest; 0 if the task was never claimed
	Epoch   uint64      // of its writer
	Writer  string      // its writer, which no other claim has
	Claimed bool        // its writer has not released the task; it may be alive or not
	Deleted bool        // the task was deleted, and not claimed since
	Latest  *Checkpoint // nil if there is none
}

// Status reads the newest manifest, in two requests however long the history
// is (three if it is of a large state). Its error leaves Newest nil, and the
// rest zero unless the manifest itself could be read. If there is no manifest, it
// returns ErrLost if there must have been one.
func (t *Task) Status(ctx context.Context) (Status, error) {
	return history.Reread(ctx, func() (Status, error) {
		s, err := t.log.Newest(ctx)
		if err == nil && s == nil {
			err = t.wantNew(ctx)
		}
		if err != nil || s == nil {
			return Status{}, err
		}
		status := Status{
			Seq: s.Seq, Epoch: s.Epoch, Writer: s.Writer.String(),
			Claimed: s.Claimed(),
			Deleted: s.Kind == format.KindDeleted,
		}
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

// List returns all checkpoints that exist: first the newest, and then the
// others by when they were the newest, which is the order of their numbers
// unless the task has gone back to an older one. It reads each one's manifest.
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

// openAll opens the checkpoints that step s lists. It returns ErrGone if even
// the newest has been retired since.
func (t *Task) openAll(ctx context.Context, s *history.Committed, all []format.Retained) ([]*Checkpoint, error) {
	list, damage := make([]*Checkpoint, len(all)), make([]error, len(all))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(t.job.opts.Requests)
	for i, r := range all {
		group.Go(func() (err error) {
			list[i], err = t.openRetained(ctx, s, r)
			switch {
			case errors.Is(err, ErrGone) && i > 0:
				return nil // retired meanwhile: it is no longer one that exists
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

// openRetained opens a checkpoint that step s lists. It returns ErrGone if it
// was retired since s was read.
func (t *Task) openRetained(ctx context.Context, s *history.Committed, r format.Retained) (*Checkpoint, error) {
	if c := s.Current(); c != nil && c.Seq == r.Seq {
		return t.open(ctx, c)
	}
	m, err := t.log.Commit(ctx, r)
	if err != nil {
		return nil, err
	}
	return t.open(ctx, m.Checkpoint)
}
