package history

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/cause"
	"github.com/holdfast-io/holdfast/checkpoint/internal/clock"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/segment"
)

// FenceWindow is how old a manifest must be, by the store's clock, before it may be
// deleted. An owner that was away for more than half of it makes sure that it is still
// the owner. It is one constant for everyone, because an owner and a collector that
// disagreed on it could harm each other.
const FenceWindow = time.Hour

// A Log is the history of one task: its manifests. It may be used from many goroutines
// at once.
type Log struct {
	Store    backend.Store
	Segments *segment.Reader // of the task; parts of manifests lie there
	Task     string
	Dir      string // the task's, in keys
	Backoff  backend.Backoff
}

var (
	// ErrTaken means that another manifest stands under the number of ours, which is
	// not in the store and never will be.
	ErrTaken = errors.New("another writer was first")

	// ErrOvertaken means that a manifest is or was in the store, and that the history
	// has gone on without its checkpoint: it never was the newest, or it was and its
	// checkpoint has been retired since.
	ErrOvertaken = errors.New("the task has gone on without it")
)

// A takenError is an ErrTaken or an ErrOvertaken that knows the number.
type takenError struct {
	error
	seq uint64
}

func (e takenError) Unwrap() error { return e.error }

// An Attempt is one manifest on its way into the store. Its token makes its bytes
// unlike those of every other attempt.
type Attempt struct {
	Manifest *format.Manifest
	data     []byte
	inDoubt  bool // a request may have been applied, or may yet be
}

// NewAttempt returns the attempt to create m, to which it gives a token.
func (l *Log) NewAttempt(m *format.Manifest) (*Attempt, error) {
	rand.Read(m.Token[:])
	data, err := m.Encode()
	if err != nil {
		return nil, fmt.Errorf("task %q: %w", l.Task, err)
	}
	return &Attempt{Manifest: m, data: data}, nil
}

// create puts a's manifest into the store and returns when it knows what came
// of it, with the object's time. Its errors are:
//
//   - ErrTaken: another manifest has the number; a's was and will never be there.
//   - ErrOvertaken: another has the number; a's may have been there before it.
//   - ErrUnknown: the store did not say. Only another call of create can tell.
//   - any other: a's manifest is not in the store and never will be.
//
// It sends the same request until the key is known to be taken, by us or by
// another: a read that finds nothing would prove nothing, because a request
// whose reply was lost may still be applied seconds later (I3).
func (l *Log) create(ctx context.Context, a *Attempt) (time.Time, error) {
	key := format.ManifestKey(l.Dir, a.Manifest.Seq)
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return time.Time{}, a.fail(ctx.Err())
		}
		o, err := l.Store.Create(ctx, key, a.data)
		if err == nil {
			return o.ModTime, nil
		}
		if errors.Is(err, backend.ErrExist) {
			return l.readBack(ctx, a)
		}
		a.inDoubt = a.inDoubt || !refused(err)
		if err := l.Backoff.Again(ctx, n, err); err != nil {
			return time.Time{}, a.fail(err)
		}
	}
}

// refused reports whether a Create that failed with err was not applied and
// never will be, which the contract of backend.Store promises for the errors
// that are not worth trying again. The end of the context is not one of them.
func refused(err error) bool {
	return !backend.Retryable(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// fail returns the error of an attempt that ends with err.
func (a *Attempt) fail(err error) error {
	if !a.inDoubt {
		return err
	}
	return &InDoubtError{fmt.Sprintf("%s manifest %d of task %q", a.Manifest.Kind, a.Manifest.Seq, a.Manifest.Task), err}
}

// An InDoubtError is an ErrUnknown that knows why.
type InDoubtError struct {
	manifest string
	Why      error
}

func (e *InDoubtError) Error() string {
	return fmt.Sprintf("%s: %v: %v", e.manifest, cause.ErrUnknown, e.Why)
}

func (e *InDoubtError) Unwrap() []error { return []error{cause.ErrUnknown, e.Why} }

// readBack settles an attempt whose key is taken: by itself, if an earlier
// reply was lost, or by another writer.
func (l *Log) readBack(ctx context.Context, a *Attempt) (time.Time, error) {
	seq := a.Manifest.Seq
	m, err := l.Read(ctx, seq)
	if errors.Is(err, fs.ErrNotExist) {
		// Taken a moment ago, and gone: only a manifest that newer ones have
		// long followed is ever deleted.
		return time.Time{}, a.taken("its key was taken and is free again")
	}
	if err != nil {
		a.inDoubt = true
		return time.Time{}, a.fail(err)
	}
	if m.Token != a.Manifest.Token {
		return time.Time{}, a.taken(fmt.Sprintf("manifest %d of task %q is from epoch %d, writer %s", seq, l.Task, m.Epoch, m.Writer))
	}
	a.inDoubt = true // it is ours; what remains is to learn its time
	at, err := l.timeOf(ctx, seq)
	if err != nil {
		return time.Time{}, a.fail(err)
	}
	if !at.IsZero() {
		return at, nil
	}
	return time.Time{}, a.taken("it was made, and is gone")
}

// taken returns the error of an attempt whose number is not its own. If an
// earlier request of it may have been applied, it may have been the newest manifest:
// others may have gone on from it, retired and deleted it, and a manifest that came
// late may stand under its number now.
func (a *Attempt) taken(why string) error {
	kind := ErrTaken
	if a.inDoubt {
		kind = ErrOvertaken
	}
	return takenError{fmt.Errorf("%w: %s", kind, why), a.Manifest.Seq}
}

// Claim makes a new writer the owner of the task and returns its first manifest,
// which next makes of the newest one. From then on every earlier owner fails
// at its next Create (I4). After ErrUnknown it may be in the history, or may yet be.
//
// next is called again when another writer was first, and also when one has
// gone on from what was made of it already. It gets nil if there is no manifest. Its
// ErrGone says that base is not the newest any more, and its ErrClaimed that nothing
// was made of it.
func (l *Log) Claim(ctx context.Context, next func(base *Committed) (*format.Manifest, error)) (*Committed, error) {
	unsure := false // an earlier attempt may have been the newest manifest
	for n := 1; ; n++ {
		c, err := l.tryClaim(ctx, next)
		unsure = unsure || errors.Is(err, ErrOvertaken)
		if errors.Is(err, ErrTaken) || errors.Is(err, ErrOvertaken) || errors.Is(err, cause.ErrGone) {
			if err = l.startOver(ctx, n, err); err == nil {
				continue
			}
		}
		if err != nil && unsure && !errors.Is(err, cause.ErrUnknown) && !errors.Is(err, cause.ErrClaimed) {
			err = fmt.Errorf("%w: %w", cause.ErrUnknown, err)
		}
		return c, err
	}
}

// startOver waits to start over after an attempt was lost.
func (l *Log) startOver(ctx context.Context, n int, lost error) error {
	if err := l.checkListed(ctx, lost); err != nil {
		return err
	}
	if err := l.Backoff.Wait(ctx, n); err != nil {
		return fmt.Errorf("claim of task %q: %w", l.Task, err)
	}
	return nil
}

func (l *Log) tryClaim(ctx context.Context, next func(base *Committed) (*format.Manifest, error)) (*Committed, error) {
	base, err := l.Newest(ctx)
	if err != nil {
		return nil, err
	}
	m, err := next(base)
	if err != nil {
		return nil, err
	}
	a, err := l.NewAttempt(m)
	if err != nil {
		return nil, err
	}
	made, err := l.create(ctx, a)
	if err != nil {
		return nil, err
	}
	a.inDoubt = true // it is in the store, whether that comes out or not
	switch err := l.checkConditions(ctx, m); {
	case errors.Is(err, ErrOvertaken), errors.Is(err, backend.ErrUnsupported):
		return nil, err
	case err != nil:
		return nil, a.fail(err)
	}
	// If this process slept between the read and the write, the number may
	// have been used and deleted meanwhile: see the fence window.
	seq, at, err := l.newestFrom(ctx, m.Seq)
	if err != nil {
		return nil, a.fail(err)
	}
	if seq > m.Seq {
		return nil, ErrOvertaken
	}
	if err := l.checkTimes(m.Seq, made, at); err != nil {
		return nil, a.fail(err)
	}
	return &Committed{m, at}, nil
}

// Append makes a's manifest the one that follows base, the newest one of the same
// writer, and returns it. listed is of the last manifest of that writer of which a
// listing told the time; Append keeps it up to date. After ErrUnknown the outcome is
// in doubt, and only another call with the same attempt can tell. Its other errors are
// those of create.
func (l *Log) Append(ctx context.Context, a *Attempt, base *Committed, listed *clock.Stamp) (*Committed, error) {
	made, err := l.create(ctx, a)
	if err == nil {
		err = l.confirm(ctx, a, made, base, listed)
	}
	if err != nil {
		return nil, err
	}
	return &Committed{a.Manifest, made}, nil
}

// confirm closes the hole that create-if-absent has: when base's successor was made
// by another writer and deleted since, a create of that number succeeds. It cannot
// have been deleted within the fence window, so there is nothing to ask unless more
// than half of that lies between the two manifests, by the store's clock (I5).
//
// That is so if the replies tell the same time as listings do, of which the claim
// made sure. If a reply is not what the owner's own clock would have it, something
// may have come between: then the listing is asked as well. Nothing is decided by that
// clock.
func (l *Log) confirm(ctx context.Context, a *Attempt, made time.Time, base *Committed, listed *clock.Stamp) error {
	away := made.Sub(base.Time)
	apart := made.Sub(listed.Store) - listed.Passed()
	if away >= 0 && away <= FenceWindow/2 && apart.Abs() <= maxApart {
		return nil
	}
	at, err := l.confirmByList(ctx, a, made)
	if err == nil && !at.IsZero() {
		*listed = clock.Now(at)
	}
	return err
}

// AppendOnce makes m, the only manifest of its writer, a part of the history, and makes
// sure that it is. An error that wraps ErrConflict and ErrUnknown says that others have
// gone on, and that it may have been a part. Its other errors are those of create.
func (l *Log) AppendOnce(ctx context.Context, m *format.Manifest) (*Committed, error) {
	a, err := l.NewAttempt(m)
	if err != nil {
		return nil, err
	}
	at, err := l.create(ctx, a)
	if err == nil {
		a.inDoubt = true
		err = l.confirmOnce(ctx, a, at)
	}
	switch {
	case err == nil:
		return &Committed{m, at}, nil
	case errors.Is(err, ErrOvertaken):
		return nil, fmt.Errorf("%w: %w: %w; ls shows whether it was saved", cause.ErrConflict, cause.ErrUnknown, err)
	case errors.Is(err, cause.ErrUnknown), errors.Is(err, backend.ErrUnsupported):
		return nil, err
	case errors.Is(err, ErrTaken):
		return nil, cmp.Or(l.checkListed(ctx, err), err)
	}
	return nil, a.fail(err)
}

// confirmOnce makes sure that a save whose manifest is in the store became a
// part of the history: what was read before it may be old, and the number may
// have been used and deleted meanwhile.
func (l *Log) confirmOnce(ctx context.Context, a *Attempt, made time.Time) error {
	if a.Manifest.Seq <= 2 { // the first writer may have died before it had
		if err := l.checkConditions(ctx, a.Manifest); err != nil {
			return err
		}
	}
	_, err := l.confirmByList(ctx, a, made)
	return err
}

// confirmByList makes sure that a's manifest, which is in the store since the time that
// the reply told, is in the history: it is the newest, or a later one retains its
// checkpoint. Its error is ErrOvertaken if it is not, or ErrUnknown. It returns the
// time that the listing tells, or zero if others have gone on.
func (l *Log) confirmByList(ctx context.Context, a *Attempt, replied time.Time) (listed time.Time, err error) {
	a.inDoubt = true
	seq, at, err := l.newestFrom(ctx, a.Manifest.Seq)
	if err != nil {
		return time.Time{}, a.fail(err)
	}
	if seq == a.Manifest.Seq {
		if err := l.checkTimes(seq, replied, at); err != nil {
			return time.Time{}, a.fail(err)
		}
		return at, nil
	}
	all, err := l.allForCertain(ctx)
	if err != nil {
		return time.Time{}, a.fail(err)
	}
	if slices.ContainsFunc(all, func(r format.Retained) bool { return r.Seq == a.Manifest.Seq }) {
		return time.Time{}, nil // others have gone on from it
	}
	return time.Time{}, fmt.Errorf("manifest %d of task %q: %w, to number %d", a.Manifest.Seq, l.Task, ErrOvertaken, seq)
}
