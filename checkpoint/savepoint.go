package checkpoint

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/clock"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// SavepointOptions say what becomes a savepoint. The zero value is the latest checkpoint,
// which is kept until the savepoint is removed.
type SavepointOptions struct {
	// At is the checkpoint that gets the name.
	At Ref
	// ExpiresAfter is after how long, from now, retention may remove the savepoint. It
	// keeps its name until it is removed. It is rounded up to seconds. Zero is never, for
	// what is no savepoint yet.
	ExpiresAfter time.Duration
}

// A Note is what someone wants to be remembered of a checkpoint. Author and Text take 512
// bytes together at the most.
type Note struct {
	Author string `json:"author"`
	Text   string `json:"text"`
}

// AddSavepoint gives a name to a checkpoint that has none, so that retention does not
// remove it. If it has that name already, only its expiry is changed, and only if one is
// given. It returns ErrNoCheckpoint if there is no such checkpoint, and ErrConflict if it
// has another name, or another checkpoint has this one.
//
// Like the other methods that change a name or a note, it returns the number of the
// checkpoint, and does not disturb the task's owner, whose next commit continues from the
// change. Until then [Owner.Checkpoint] does not show it. It sends four requests. After
// ErrUnknown the change may have been made, or may yet be; after any other error it was
// not.
func (t *Task) AddSavepoint(ctx context.Context, name string, opts SavepointOptions) (seq uint64, err error) {
	if err := CheckSavepointName(name); err != nil {
		return 0, err
	}
	if opts.ExpiresAfter < 0 {
		return 0, backend.Invalidf("the savepoint is to expire after %v; that must not be negative", opts.ExpiresAfter)
	}
	return t.edit(ctx, opts.At, func(e *edit, r *format.Retained) error {
		if r.Savepoint != "" && r.Savepoint != name {
			return fmt.Errorf("%w: task %q: checkpoint %d is savepoint %q already; rename that", ErrConflict, t.Name(), r.Seq, r.Savepoint)
		}
		if err := e.wantFree(name, r); err != nil {
			return err
		}
		r.Savepoint = name
		if opts.ExpiresAfter > 0 {
			// A time that is told too early by a machine must not end it too early.
			now := clock.Latest(t.job.clock(), e.base.Time)
			r.ExpiresAfter = min(seconds(opts.ExpiresAfter)+seconds(max(0, now.Sub(r.From()))), format.MaxExpiry)
		}
		return nil
	})
}

// RenameSavepoint gives the savepoint name another one. It returns ErrNoCheckpoint if
// there is no such savepoint, and ErrConflict if there is one of the new name. What else
// is said of [Task.AddSavepoint] holds for it as well.
func (t *Task) RenameSavepoint(ctx context.Context, name, to string) (seq uint64, err error) {
	if err := cmp.Or(CheckSavepointName(name), CheckSavepointName(to)); err != nil {
		return 0, err
	}
	return t.edit(ctx, Savepoint(name), func(e *edit, r *format.Retained) error {
		if r.Savepoint != name && r.Savepoint != to { // meanwhile
			return fmt.Errorf("task %q has no savepoint %q any more: %w", t.Name(), name, ErrNoCheckpoint)
		}
		if err := e.wantFree(to, r); err != nil {
			return err
		}
		r.Savepoint = to
		return nil
	})
}

// RemoveSavepoint takes the name from a savepoint, which is a checkpoint like others for
// retention from then on. It returns ErrNoCheckpoint if there is no such savepoint. What
// else is said of [Task.AddSavepoint] holds for it as well.
func (t *Task) RemoveSavepoint(ctx context.Context, name string) (seq uint64, err error) {
	if err := CheckSavepointName(name); err != nil {
		return 0, err
	}
	return t.edit(ctx, Savepoint(name), func(_ *edit, r *format.Retained) error {
		if r.Savepoint == name {
			r.Savepoint, r.ExpiresAfter = "", 0
		}
		return nil
	})
}

// Annotate makes note what is remembered of a checkpoint; the zero Note removes it. A note
// does not keep the checkpoint: it is removed with it. Annotate returns ErrNoCheckpoint if
// there is no such checkpoint. What else is said of [Task.AddSavepoint] holds for it as
// well.
func (t *Task) Annotate(ctx context.Context, at Ref, note Note) (seq uint64, err error) {
	if err := note.check(); err != nil {
		return 0, err
	}
	return t.edit(ctx, at, func(_ *edit, r *format.Retained) error {
		r.Note = format.Note(note)
		return nil
	})
}

func (n Note) check() error {
	for _, text := range []string{n.Author, n.Text} {
		if !utf8.ValidString(text) || slices.ContainsFunc([]rune(text), func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) {
			return backend.Invalidf("note %.40q: use text without control characters", text)
		}
	}
	if size := len(n.Author) + len(n.Text); size > format.MaxNote {
		return backend.Invalidf("a note of %d bytes, author and text together; %d are the most", size, format.MaxNote)
	}
	return nil
}

// An edit is a change to what is said of one checkpoint, under way.
type edit struct {
	base *history.Committed
	all  []format.Retained // which the change may change
}

// edit amends what is said of the checkpoint that at means, and returns its number. change
// is called again when another writer was first.
func (t *Task) edit(ctx context.Context, at Ref, change func(*edit, *format.Retained) error) (seq uint64, err error) {
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	if err := at.check(); err != nil {
		return 0, err
	}
	err = t.log.Amend(ctx, func(base *history.Committed, all []format.Retained, again bool) ([]format.Retained, error) {
		e := &edit{base, slices.Clone(all)}
		if !again {
			found, err := t.find(base, all, at)
			if err != nil {
				return nil, err
			}
			seq = found.Seq
		}
		// After an attempt that may have been made, the same checkpoint is meant still: the
		// latest may be another by now, and the name that was to be changed may be changed.
		i := slices.IndexFunc(e.all, func(r format.Retained) bool { return r.Seq == seq })
		if i < 0 {
			return nil, fmt.Errorf("task %q: checkpoint %d is no longer retained: %w", t.Name(), seq, ErrNoCheckpoint)
		}
		err := change(e, &e.all[i])
		return e.all, err
	})
	return seq, err
}

// wantFree makes sure that no other checkpoint than r has the name.
func (e *edit) wantFree(name string, r *format.Retained) error {
	others := slices.DeleteFunc(slices.Clone(e.all), func(o format.Retained) bool { return o.Seq == r.Seq })
	return checkSavepoint(name, others)
}

// seconds rounds up.
func seconds(d time.Duration) int64 {
	n := int64(d / time.Second)
	if d%time.Second > 0 {
		n++
	}
	return n
}
