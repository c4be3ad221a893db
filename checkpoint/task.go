package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A Task is one unit of a job that checkpoints, with one history. It may be
// used from many goroutines at once.
type Task struct {
	job     *Job
	history history
}

// Name returns the task's name.
func (t *Task) Name() string { return t.history.name }

// Status is what a task's newest manifest says.
type Status struct {
	Seq     uint64      // of the newest manifest; 0 if the task was never claimed
	Epoch   uint64      // of its writer
	Writer  string      // its writer, which no other claim has
	Claimed bool        // its writer has not released the task; it may be alive or not
	Deleted bool        // the task was deleted, and not claimed since
	Newest  *Checkpoint // nil if there is none
}

// Status reads the newest manifest, in two requests however long the history
// is (three if it is of a large state). Its error leaves Newest nil, and the
// rest zero unless the manifest itself could be read. If there is no manifest, it
// returns ErrLost if there must have been one.
func (t *Task) Status(ctx context.Context) (Status, error) {
	return again(ctx, func() (Status, error) {
		s, err := t.history.newest(ctx)
		if err == nil && s == nil {
			err = t.wantNew(ctx)
		}
		if err != nil || s == nil {
			return Status{}, err
		}
		status := Status{
			Seq: s.Seq, Epoch: s.Epoch, Writer: s.Writer.String(),
			Claimed: s.claimed(),
			Deleted: s.Kind == format.KindDeleted,
		}
		if c := s.checkpoint(); c != nil {
			status.Newest, err = t.open(ctx, c)
		}
		return status, err
	})
}

// claimed reports whether more manifests may come of the writer of step s.
func (s *step) claimed() bool { return !s.Released && s.Kind != format.KindDeleted }

// Newest returns the newest checkpoint, for as many requests as Status. It
// returns ErrNoCheckpoint if there is none.
func (t *Task) Newest(ctx context.Context) (*Checkpoint, error) {
	status, err := t.Status(ctx)
	if err == nil && status.Newest == nil {
		err = fmt.Errorf("task %q has no checkpoint: %w", t.Name(), ErrNoCheckpoint)
	}
	return status.Newest, err
}

// At returns a checkpoint by its number or, if at is no number, by the name
// of its savepoint. It returns ErrNoCheckpoint if it was never committed or
// is not retained any more.
func (t *Task) At(ctx context.Context, at string) (*Checkpoint, error) {
	if at == "" {
		return nil, backend.Invalidf("which checkpoint? give its number, or the name of a savepoint")
	}
	return again(ctx, func() (*Checkpoint, error) {
		s, all, damage, err := t.readableAndAll(ctx)
		if err != nil {
			return nil, err
		}
		r, err := t.find(s, all, at)
		if damage != nil && errors.Is(err, ErrNoCheckpoint) {
			return nil, damage // it may be in what can not be read
		}
		if err != nil {
			return nil, err
		}
		return t.openRetained(ctx, s, r)
	})
}

// again calls read until it is not overtaken by a writer: what it had found in
// the newest manifest was retired before it had read it. Each time a newer one
// is there, so a few times are enough.
func again[T any](ctx context.Context, read func() (T, error)) (v T, err error) {
	for range 5 {
		if v, err = read(); !errors.Is(err, ErrGone) || ctx.Err() != nil {
			break
		}
	}
	return v, err
}

// find returns that of a task's checkpoints which at names; s is its last step.
func (t *Task) find(s *step, all []format.Retained, at string) (format.Retained, error) {
	seq, _ := strconv.ParseUint(at, 10, 64) // a number that is too large gives the largest
	i := slices.IndexFunc(all, func(r format.Retained) bool {
		if isNumber(at) {
			return r.Seq == seq
		}
		return r.Savepoint == at
	})
	var why string
	switch {
	case i >= 0:
		return all[i], nil
	case !isNumber(at):
		why = fmt.Sprintf(" has no savepoint %q", at)
	case s != nil && seq > 0 && seq <= s.Seq:
		why = fmt.Sprintf(": number %d is not, or no longer, a retained checkpoint", seq)
	default:
		why = fmt.Sprintf(": checkpoint %s was never committed", at)
	}
	return format.Retained{}, fmt.Errorf("task %q%s: %w", t.Name(), why, ErrNoCheckpoint)
}

// Checkpoints returns all checkpoints that exist: first the newest, and then the
// others by when they were the newest, which is the order of their numbers
// unless the task has gone back to an older one. It reads each one's manifest.
// It returns ErrNoCheckpoint if the task was never claimed. If some are damaged,
// it returns the others, and the errors joined.
func (t *Task) Checkpoints(ctx context.Context) ([]*Checkpoint, error) {
	return again(ctx, func() ([]*Checkpoint, error) {
		s, all, damage, err := t.readableAndAll(ctx)
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
func (t *Task) openAll(ctx context.Context, s *step, all []format.Retained) ([]*Checkpoint, error) {
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

// readableAndAll is newestAndAll for those who want an older checkpoint: when
// the newest manifest can not be read, damage says why, and the step is the
// newest one that can.
func (t *Task) readableAndAll(ctx context.Context) (s *step, all []format.Retained, damage, err error) {
	s, all, err = t.newestAndAll(ctx)
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
		return s, all, nil, err
	}
	damage = err
	if s, err = t.history.newestReadable(ctx); err != nil || s == nil {
		return nil, nil, nil, errors.Join(damage, err)
	}
	all, err = t.all(ctx, s)
	return s, all, damage, err
}

// newestAndAll returns the newest step, nil if there is none, and all the
// checkpoints that exist, its own first.
func (t *Task) newestAndAll(ctx context.Context) (*step, []format.Retained, error) {
	s, err := t.history.newest(ctx)
	if err != nil {
		return nil, nil, err
	}
	all, err := t.all(ctx, s)
	return s, all, err
}

// allForSure returns all the checkpoints that exist, for those who might do harm
// by a list of the past: after newestAndAll has found the newest step, and before
// it reads it, that may be retired and deleted, and one who slept may make
// another manifest of its number.
func (t *Task) allForSure(ctx context.Context) ([]format.Retained, error) {
	return again(ctx, func() ([]format.Retained, error) {
		s, all, err := t.newestAndAll(ctx)
		if err != nil || s == nil {
			return nil, err
		}
		at, err := t.history.timeOf(ctx, s.Seq)
		if err == nil && !isSame(s.time, at) {
			err = t.overtaken(s)
		}
		return all, err
	})
}

// madeLate returns those of a list of checkpoints whose manifests, as they were
// read just now, may be others, made late under their numbers: they are not
// retained any more, and not as old as they should be. (In a job that was copied
// all are younger, and those that are retained are what they are all the same.)
func (t *Task) madeLate(ctx context.Context, read []format.Retained) ([]format.Retained, error) {
	if len(read) == 0 {
		return nil, nil
	}
	still, err := t.allForSure(ctx)
	if err != nil {
		return nil, err
	}
	var late []format.Retained
	for _, r := range dropped(read, still) {
		at, err := t.history.timeOf(ctx, r.Seq)
		if err != nil {
			return nil, err
		}
		if !isSame(r.Time, at) {
			late = append(late, r)
		}
	}
	return late, nil
}

// all lists the checkpoints of step s, its own first, wherever the list lies. It
// returns ErrGone if s is not the last step any more, and its list is gone.
func (t *Task) all(ctx context.Context, s *step) ([]format.Retained, error) {
	if s == nil {
		return nil, nil
	}
	if s.RetainedAt == nil {
		return s.allCheckpoints(s.Retained), nil
	}
	var retained []format.Retained
	err := t.readPart(ctx, s.RetainedAt, func(data []byte) (err error) {
		retained, err = s.DecodeRetained(data)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, t.missingList(ctx, s, err)
	}
	if err != nil {
		return nil, err
	}
	return s.allCheckpoints(retained), nil
}

// missingList tells why the retained list of step s is not there.
func (t *Task) missingList(ctx context.Context, s *step, cause error) error {
	seq, _, err := t.history.newestSeq(ctx)
	if err != nil {
		return err
	}
	if seq != s.Seq {
		return t.overtaken(s)
	}
	return fmt.Errorf("task %q: the newest manifest needs an object that is missing: %w: %w", t.Name(), ErrCorrupt, cause)
}

// overtaken is the error of who goes by step s when that is not the last one any
// more, or may never have been a step.
func (t *Task) overtaken(s *step) error {
	return fmt.Errorf("task %q, manifest %d: %w", t.Name(), s.Seq, ErrGone)
}

// openRetained opens a checkpoint that step s lists. It returns ErrGone if it
// was retired since s was read.
func (t *Task) openRetained(ctx context.Context, s *step, r format.Retained) (*Checkpoint, error) {
	if c := s.checkpoint(); c != nil && c.Seq == r.Seq {
		return t.open(ctx, c)
	}
	m, err := t.committed(ctx, r)
	if err != nil {
		return nil, err
	}
	return t.open(ctx, m.Checkpoint)
}

// committed is readRetained that tells why there is no such manifest.
func (t *Task) committed(ctx context.Context, r format.Retained) (*format.Manifest, error) {
	m, err := t.readRetained(ctx, r)
	if errors.Is(err, fs.ErrNotExist) {
		err = t.missing(ctx, r.Seq, err)
	}
	return m, err
}

// readRetained returns the manifest of a checkpoint that is retained.
func (t *Task) readRetained(ctx context.Context, r format.Retained) (*format.Manifest, error) {
	m, err := t.history.read(ctx, r.Seq)
	if err != nil {
		return nil, err
	}
	if m.Kind != format.KindCommit {
		return nil, fmt.Errorf("manifest %s: %w: it is a %s; expected a commit", format.ManifestKey(t.history.dir, r.Seq), ErrCorrupt, m.Kind)
	}
	m.Checkpoint.Time, m.Checkpoint.CountsFrom = r.Time, r.CountsFrom
	return m, nil
}

// missing tells why an object that checkpoint seq needs is not there: the
// checkpoint has been retired, which is no fault, or it has been damaged.
func (t *Task) missing(ctx context.Context, seq uint64, cause error) error {
	_, all, err := t.newestAndAll(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(r format.Retained) bool { return r.Seq == seq }) {
		return fmt.Errorf("task %q: checkpoint %d is retained, but an object that it needs is missing: %w: %w", t.Name(), seq, ErrCorrupt, cause)
	}
	return fmt.Errorf("task %q, checkpoint %d: %w", t.Name(), seq, ErrGone)
}
