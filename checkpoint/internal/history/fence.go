package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/holdfast-io/holdfast/checkpoint/internal/cause"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file finds out what became of an owner whose next number is taken: it is fenced if
// another writer's manifest is the newest, and else continues from what was amended.
//
//	Append, AppendOnce   an attempt has not got its number
//	  lost               fenced, amended, or committed all the same
//	    NewestOfWriter   the newest manifest, if it is of the owner's epoch and writer
//	      fenced         the error that says who has the task
//	Refresh              an owner looks by itself: one request if nothing has changed

// An AmendedError says that an attempt was not made and never will be, because someone
// else has amended what it was to follow. The writer is the owner still, and
// continues from Newest.
type AmendedError struct {
	Newest *Committed
	All    []format.Retained // its checkpoints, the current one first
}

func (e *AmendedError) Error() string {
	return fmt.Sprintf("manifest %d of task %q amends what this one was to follow", e.Newest.Seq, e.Newest.Task)
}

// Refresh returns the newest manifest, with all its checkpoints, if it is of own's epoch
// and writer: own itself, or what others have amended since. Else it returns ErrFenced.
// If nothing has followed own, it sends one request, and all is nil.
func (l *Log) Refresh(ctx context.Context, own *Committed) (newest *Committed, all []format.Retained, err error) {
	seq, at, err := l.newestFrom(ctx, own.Seq)
	if err == nil && seq == own.Seq {
		return &Committed{own.Manifest, at}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return l.NewestOfWriter(ctx, own.Manifest)
}

// NewestOfWriter is Refresh for a manifest that is not in the history, or not the newest.
// A manifest that only a newer version of this library can read fences the writer too,
// whoever made it: this program cannot continue from it.
//
// Only what a later listing shows as the newest is certain to be in the history: it was
// never followed, so that it was never deleted and another made late under its number.
func (l *Log) NewestOfWriter(ctx context.Context, own *format.Manifest) (*Committed, []format.Retained, error) {
	var read *format.Manifest
	var seen uint64 // the number of what was read
	var newer error // why it could not be decoded
	for range 10 {  // each time others have continued
		seq, at, err := l.newestFrom(ctx, own.Seq)
		if err != nil {
			return nil, nil, err
		}
		if seq == seen {
			if newer != nil {
				return nil, nil, fmt.Errorf("%w: %w", cause.ErrFenced, newer)
			}
			if read.Epoch != own.Epoch || read.Writer != own.Writer {
				return nil, nil, l.fenced(read)
			}
			newest := &Committed{read, at}
			all, err := l.All(ctx, newest)
			if !errors.Is(err, cause.ErrGone) {
				return newest, all, err
			}
		}
		read, newer = l.Read(ctx, seq)
		switch {
		case newer == nil, errors.Is(newer, cause.ErrVersion):
			seen = seq
		case errors.Is(newer, fs.ErrNotExist):
			seen = 0
		default:
			return nil, nil, newer
		}
	}
	return nil, nil, fmt.Errorf("task %q: others continue its history faster than it can be read", l.Task)
}

// fenced returns the error of a writer after whom another one has made manifest m.
func (l *Log) fenced(m *format.Manifest) error {
	if m.Kind == format.KindDeleted {
		return fmt.Errorf("%w: task %q was deleted by %s", cause.ErrFenced, l.Task, m.Who())
	}
	return fmt.Errorf("%w: manifest %d of task %q is from epoch %d, %s", cause.ErrFenced, m.Seq, l.Task, m.Epoch, m.Who())
}

// A fencedError is an ErrFenced that says who has the task. It is also what came of the
// attempt that found out: an ErrTaken or an ErrOvertaken.
type fencedError struct {
	error
	attempt error
}

func (e fencedError) Unwrap() []error { return []error{e.error, e.attempt} }

// lost finds out what an owner continues from whose attempt has not got its number: err
// says why. The owner is fenced only if the newest manifest is of another writer, because
// what has the number may have been made late. Else others have amended what the attempt
// was to follow.
func (l *Log) lost(ctx context.Context, a *Attempt, err error) (*Committed, error) {
	if !errors.Is(err, ErrTaken) && !errors.Is(err, ErrOvertaken) {
		return nil, err
	}
	newest, all, why := l.NewestOfWriter(ctx, a.Manifest)
	switch {
	case errors.Is(why, cause.ErrFenced):
		return nil, fencedError{why, err}
	case why != nil && errors.Is(err, ErrTaken): // it was not made; who makes another one finds out
		return nil, why
	case why != nil:
		a.inDoubt = true
		return nil, a.fail(why)
	}
	// If it was made, all later manifests are amendments of it.
	current := newest.Current()
	switch m := a.Manifest; {
	case m.Kind == format.KindCommit && current != nil && current.Seq == m.Seq:
		return &Committed{m, current.Time}, nil
	case m.Released && newest.Released:
		return newest, nil
	}
	return nil, &AmendedError{newest, all}
}
