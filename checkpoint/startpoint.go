package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// StartAt says where a Startpoint lets an input partition be read from.
type StartAt string

// Where a partition may be read from.
const (
	StartAtOldest StartAt = "oldest" // from the oldest that the input still has
	StartAtNewest StartAt = "newest" // from what comes next
	StartAtOffset StartAt = "offset" // from Startpoint.Offset
	StartAtTime   StartAt = "time"   // from what came at Startpoint.Time, or next after it
)

// A Startpoint is an operator's order, for once, to read an input partition from somewhere
// else than the checkpoint says. It lies beside the checkpoints. Whoever takes the task on
// next uses it, and removes it once a checkpoint is committed in which that partition made
// progress: until then it is used again. Package runner does both. Whoever does it without the
// runner must remember in that checkpoint which ones were used, as the runner does by a label.
type Startpoint struct {
	Partition string    `json:"partition"`
	At        StartAt   `json:"at"`
	Offset    string    `json:"offset,omitempty"` // with StartAtOffset
	Time      time.Time `json:"time,omitzero"`    // with StartAtTime

	// Of a startpoint that was set. ID names it among all.
	ID    string    `json:"id"`
	SetAt time.Time `json:"set_at"` // by the store's clock
	SetBy string    `json:"set_by"` // what the program that set it said of itself: see Options.WrittenBy
}

func (s *Startpoint) check() error {
	switch {
	case s.Partition == "":
		return backend.Invalidf("a startpoint needs a partition")
	case s.At == StartAtOffset && s.Offset == "":
		return backend.Invalidf("a startpoint at an offset needs one")
	case s.At == StartAtTime && s.Time.IsZero():
		return backend.Invalidf("a startpoint at a time needs one")
	case s.At != StartAtOffset && s.Offset != "", s.At != StartAtTime && !s.Time.IsZero():
		return backend.Invalidf("a startpoint at %q has an offset or a time that is of no use", s.At)
	}
	switch s.At {
	case StartAtOldest, StartAtNewest, StartAtOffset, StartAtTime:
		return nil
	}
	return backend.Invalidf("a startpoint at %q; use %q, %q, %q or %q", s.At, StartAtOldest, StartAtNewest, StartAtOffset, StartAtTime)
}

// SetStartpoint sets a startpoint, and returns it with its id. It counts in place of those
// that were set for the same partition before. It takes effect when the task is taken on the next
// time: a job that runs is not disturbed, and must be restarted. The state is that of the
// checkpoint all the same; whether it fits the other position is for the caller to know.
//
// SetStartpoint returns ErrNoCheckpoint if there is no such task. It sends four requests.
// After ErrUnknown the startpoint may have been set, or may yet be; after any other error it
// was not.
func (t *Task) SetStartpoint(ctx context.Context, s Startpoint) (Startpoint, error) {
	if err := s.check(); err != nil {
		return Startpoint{}, err
	}
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return Startpoint{}, err
	}
	defer end()
	newest, err := t.log.Newest(ctx)
	if err != nil {
		return Startpoint{}, err
	}
	if newest == nil || newest.Kind == format.KindDeleted {
		return Startpoint{}, fmt.Errorf("task %q does not exist: %w", t.Name(), ErrNoCheckpoint)
	}
	last := uint64(0)
	for o, err := range t.startpointObjects(ctx) {
		if err != nil {
			return Startpoint{}, err
		}
		last = o.id.N // they come in order
	}
	f := format.Startpoint{
		Task: t.Name(), Partition: s.Partition, At: string(s.At), Offset: s.Offset, Time: s.Time.UTC(), SetBy: t.job.opts.WrittenBy,
	}
	if s.Time.IsZero() {
		f.Time = time.Time{}
	}
	data, err := f.Encode()
	if err != nil {
		return Startpoint{}, err
	}
	if err := ctx.Err(); err != nil {
		return Startpoint{}, err
	}
	id := format.StartpointAfter(last)
	o, err := t.job.store.Put(ctx, format.StartpointKey(t.log.Dir, id), data)
	if err != nil {
		return Startpoint{}, unlessRefused(err)
	}
	return startpointOf(id, &f, o.ModTime), nil
}

func startpointOf(id format.StartpointID, f *format.Startpoint, at time.Time) Startpoint {
	return Startpoint{
		Partition: f.Partition, At: StartAt(f.At), Offset: f.Offset, Time: f.Time,
		ID: id.String(), SetAt: at.UTC(), SetBy: f.SetBy,
	}
}

// Startpoints returns the startpoints of the task in the order in which they were set: for
// each partition the last one counts. It sends one request, and one for each startpoint. If
// some cannot be read, it returns the others, and the errors joined.
func (t *Task) Startpoints(ctx context.Context) ([]Startpoint, error) {
	var list []Startpoint
	var damage []error
	for o, err := range t.startpointObjects(ctx) {
		if err != nil {
			return nil, err
		}
		f, err := readRecord(ctx, t, o.Key, "startpoint "+o.Key+" (remove it, and set it again)", format.DecodeStartpoint)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was removed since
		case errors.Is(err, ErrCorrupt), errors.Is(err, ErrVersion):
			damage = append(damage, err)
		case err != nil:
			return nil, err
		default:
			list = append(list, startpointOf(o.id, f, o.ModTime))
		}
	}
	return list, errors.Join(damage...)
}

// A startpointObject is one that was listed.
type startpointObject struct {
	backend.Object
	id format.StartpointID
}

// startpointObjects lists the task's startpoints, in the order in which they were set.
func (t *Task) startpointObjects(ctx context.Context) func(yield func(startpointObject, error) bool) {
	return func(yield func(startpointObject, error) bool) {
		for o, err := range t.job.store.List(ctx, format.StartpointPrefix(t.log.Dir), "") {
			id, ok := format.ParseStartpointKey(t.log.Dir, o.Key)
			if (ok || err != nil) && !yield(startpointObject{o, id}, err) {
				return
			}
		}
	}
}

// RemoveStartpoints removes startpoints by their ids, in one request. One that is not there
// is no error. A startpoint that is set meanwhile has another id, and stays. After ErrUnknown
// some may have been removed, or may yet be.
func (t *Task) RemoveStartpoints(ctx context.Context, ids ...string) error {
	keys := make([]string, len(ids))
	for i, s := range ids {
		id, ok := format.ParseStartpointID(s)
		if !ok {
			return backend.Invalidf("%q is not the id of a startpoint", s)
		}
		keys[i] = format.StartpointKey(t.log.Dir, id)
	}
	if len(keys) == 0 {
		return nil
	}
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := ctx.Err(); err != nil {
		return err
	}
	return unlessRefused(t.job.store.Delete(ctx, keys...))
}

// unlessRefused returns the error of a request that was sent to change something. It is
// ErrUnknown unless the store has refused the request.
func unlessRefused(err error) error {
	if err == nil || history.Refused(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// collectRecords deletes what lies beside the checkpoints of a task that s, its newest
// manifest, says was deleted. Startpoints can be set for a task that exists alone. So those
// that are listed while s is still the newest manifest were set before the deletion.
func (t *Task) collectRecords(ctx context.Context, s *history.Committed) error {
	dir := t.log.Dir
	keys := []string{format.RestoreTestKey(dir), format.AnnouncedKey(dir), format.HeartbeatKey(dir)}
	for o, err := range t.startpointObjects(ctx) {
		if err != nil {
			return err
		}
		keys = append(keys, o.Key)
	}
	if seq, _, err := t.log.NewestSeq(ctx); err != nil || seq != s.Seq {
		return err // it lives again
	}
	var err error
	for batch := range slices.Chunk(keys, deleteBatch) {
		err = errors.Join(err, t.job.store.Delete(ctx, batch...))
	}
	return err
}
