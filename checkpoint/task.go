package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

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

// Status says who a task belongs to.
type Status struct {
	Seq     uint64 // of the newest manifest; 0 if the task was never claimed
	Epoch   uint64 // of its writer
	Writer  string // its writer, which no other claim has
	Claimed bool   // its writer has not released the task; it may be alive or not
	Deleted bool   // the task was deleted, and not claimed since
}

// Status reads the newest manifest, in two requests.
func (t *Task) Status(ctx context.Context) (Status, error) {
	s, err := t.history.newest(ctx)
	if err != nil || s == nil {
		return Status{}, err
	}
	deleted := s.Kind == format.KindDeleted
	return Status{
		Seq: s.Seq, Epoch: s.Epoch, Writer: s.Writer.String(),
		Claimed: !s.Released && !deleted, Deleted: deleted,
	}, nil
}

// Newest returns the newest checkpoint, in two requests however long the
// history is (three if it is of a large state). It returns ErrNoCheckpoint if
// there is none.
func (t *Task) Newest(ctx context.Context) (*Checkpoint, error) {
	s, err := t.history.newest(ctx)
	if err != nil {
		return nil, err
	}
	if s == nil || s.Checkpoint == nil {
		return nil, fmt.Errorf("task %q has no checkpoint: %w", t.Name(), ErrNoCheckpoint)
	}
	return t.open(ctx, s.checkpoint())
}

// At returns a checkpoint by its number or, if at is no number, by the name
// of its savepoint. It returns ErrNoCheckpoint if it was never committed or
// is not retained any more.
func (t *Task) At(ctx context.Context, at string) (*Checkpoint, error) {
	for range 3 {
		s, err := t.history.newest(ctx)
		if err != nil {
			return nil, err
		}
		c, err := t.find(ctx, s, at)
		if errors.Is(err, ErrGone) {
			continue // retired since the list was read
		}
		return c, err
	}
	return nil, fmt.Errorf("task %q, checkpoint %s: %w", t.Name(), at, ErrGone)
}

func (t *Task) find(ctx context.Context, s *step, at string) (*Checkpoint, error) {
	all, err := t.all(ctx, s)
	if err != nil {
		return nil, err
	}
	seq, notNumber := strconv.ParseUint(at, 10, 64)
	i := slices.IndexFunc(all, func(r format.Retained) bool {
		if notNumber != nil {
			return r.Savepoint == at
		}
		return r.Seq == seq
	})
	switch {
	case i >= 0:
		return t.openRetained(ctx, s, all[i])
	case notNumber != nil:
		return nil, fmt.Errorf("task %q has no savepoint %q: %w", t.Name(), at, ErrNoCheckpoint)
	case s != nil && seq > 0 && seq <= s.Seq:
		return nil, fmt.Errorf("task %q: number %d is not, or no longer, a retained checkpoint; ls shows those that are: %w", t.Name(), seq, ErrNoCheckpoint)
	}
	return nil, fmt.Errorf("task %q: checkpoint %s was never committed: %w", t.Name(), at, ErrNoCheckpoint)
}

// Checkpoints returns all checkpoints that exist, newest first. It reads each
// one's manifest. It returns ErrNoCheckpoint if the task was never claimed.
func (t *Task) Checkpoints(ctx context.Context) ([]*Checkpoint, error) {
	s, err := t.history.newest(ctx)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, fmt.Errorf("task %q does not exist: %w", t.Name(), ErrNoCheckpoint)
	}
	all, err := t.all(ctx, s)
	if err != nil {
		return nil, err
	}
	list := make([]*Checkpoint, len(all))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(t.job.opts.Requests)
	for i, r := range all {
		group.Go(func() (err error) {
			list[i], err = t.openRetained(ctx, s, r)
			if errors.Is(err, ErrGone) {
				return nil // retired meanwhile: it is no longer one that exists
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(c *Checkpoint) bool { return c == nil }), nil
}

// all lists the checkpoints of step s, newest first.
func (t *Task) all(ctx context.Context, s *step) ([]format.Retained, error) {
	if s == nil {
		return nil, nil
	}
	retained, err := t.retained(ctx, s)
	return s.allCheckpoints(retained), err
}

// retained returns a step's retained list, wherever it lies.
func (t *Task) retained(ctx context.Context, s *step) ([]format.Retained, error) {
	if s.RetainedAt == nil {
		return s.Retained, nil
	}
	data, err := t.readChunk(ctx, s.RetainedAt)
	if err != nil {
		return nil, err
	}
	return format.DecodeRetained(data, s.Seq)
}

// openRetained opens a checkpoint that step s lists. It returns ErrGone if it
// was retired since s was read.
func (t *Task) openRetained(ctx context.Context, s *step, r format.Retained) (*Checkpoint, error) {
	if c := s.checkpoint(); c != nil && c.Seq == r.Seq {
		return t.open(ctx, c)
	}
	m, err := t.history.read(ctx, r.Seq)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, t.missing(ctx, r.Seq, err)
	}
	if err != nil {
		return nil, err
	}
	if m.Checkpoint == nil || m.Checkpoint.Seq != r.Seq {
		return nil, fmt.Errorf("manifest %d of task %q: %w: it is retained as a checkpoint and is none", r.Seq, t.Name(), ErrCorrupt)
	}
	m.Checkpoint.Time = r.Time
	return t.open(ctx, m.Checkpoint)
}

// missing tells why an object that checkpoint seq needs is not there: the
// checkpoint has been retired, which is no fault, or it has been damaged.
func (t *Task) missing(ctx context.Context, seq uint64, cause error) error {
	s, err := t.history.newest(ctx)
	if err != nil {
		return err
	}
	all, err := t.all(ctx, s)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(r format.Retained) bool { return r.Seq == seq }) {
		return fmt.Errorf("task %q: checkpoint %d is retained, but an object that it needs is missing: %w: %w", t.Name(), seq, ErrCorrupt, cause)
	}
	return fmt.Errorf("task %q, checkpoint %d: %w", t.Name(), seq, ErrGone)
}

// Save saves one checkpoint of a task that has no long-running owner: it
// claims, commits and releases the task in one manifest. An owner that the
// task may have is fenced by it. If another writer is first, it returns
// ErrConflict and nothing is saved.
func (t *Task) Save(ctx context.Context, s Snapshot) (*Checkpoint, error) {
	base, err := t.history.newest(ctx)
	if err != nil {
		return nil, err
	}
	existing, err := t.all(ctx, base)
	if err != nil {
		return nil, err
	}
	if err := s.check(existing); err != nil {
		return nil, err
	}
	m := t.history.follow(base, format.KindCommit, newWriter())
	m.Released = true
	retained := t.job.opts.Retention.pick(existing)
	b, err := t.build(ctx, &s, format.SegmentID{Epoch: m.Epoch, Writer: m.Writer}, retained)
	if err != nil {
		t.discard(ctx, b.segments)
		return nil, err
	}
	b.into(m)
	return t.saveStep(ctx, m, b)
}

// into makes a snapshot the checkpoint of manifest m.
func (b *built) into(m *format.Manifest) {
	b.checkpoint.Seq, b.checkpoint.Epoch = m.Seq, m.Epoch
	m.Checkpoint, m.Retained, m.RetainedAt = b.checkpoint, b.retained, b.retainedAt
}

func (t *Task) saveStep(ctx context.Context, m *format.Manifest, b built) (*Checkpoint, error) {
	a, err := newAttempt(m)
	if err != nil {
		return nil, err
	}
	at, err := t.history.create(ctx, a)
	if err != nil {
		if !errors.Is(err, ErrUnknown) {
			t.discard(ctx, b.segments)
		}
		if errors.Is(err, errLost) {
			return nil, fmt.Errorf("%w: nothing was saved, because %w; save again if this state is still wanted", ErrConflict, err)
		}
		return nil, err
	}
	if err := t.history.proveFirst(ctx, m); err != nil {
		return nil, err
	}
	if err := t.confirmSave(ctx, m); err != nil {
		return nil, err
	}
	return t.open(ctx, (&step{m, at}).checkpoint())
}

// confirmSave makes sure that a one-off save became part of the history, which
// it did not if this process slept while its number was used and deleted.
func (t *Task) confirmSave(ctx context.Context, m *format.Manifest) error {
	seq, _, err := t.history.newestSeq(ctx)
	if err != nil || seq == m.Seq {
		return err
	}
	s, err := t.history.newest(ctx)
	if err != nil {
		return err
	}
	all, err := t.all(ctx, s)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(r format.Retained) bool { return r.Seq == m.Seq }) {
		return nil // others have gone on from it
	}
	return fmt.Errorf("task %q: manifest %d was overtaken by number %d: %w", t.Name(), m.Seq, seq, ErrFenced)
}

// discard deletes segments that no manifest will ever name. It is tidiness:
// what it leaves is garbage to the next writer.
func (t *Task) discard(ctx context.Context, keys []string) {
	if len(keys) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx)
	if err := t.job.store.Delete(ctx, keys...); err != nil {
		t.job.opts.Logger.WarnContext(ctx, "segments of a failed save remain", "task", t.Name(), "segments", len(keys), "err", err)
	}
}
