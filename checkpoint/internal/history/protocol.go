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

	WrittenBy string // what this program says of itself in its manifests

	SinceBoot func() time.Duration // how long the machine has been running
}

var (
	// ErrTaken means that another manifest has the number of ours. Ours is not in the
	// store and never will be.
	ErrTaken = errors.New("another writer was first")

	// ErrOvertaken means that another manifest has our number, or that later ones do not
	// have our checkpoint, and that ours may have been in the history for a time.
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
	begun    time.Duration // since boot, before the first request
	inDoubt  bool          // a request of it may have been applied, or may yet be
}

// NewAttempt returns the attempt to create m, to which it gives a token.
func (l *Log) NewAttempt(m *format.Manifest) (*Attempt, error) {
	rand.Read(m.Token[:])
	data, err := m.Encode()
	if err != nil {
		return nil, fmt.Errorf("task %q: %w", l.Task, err)
	}
	return &Attempt{Manifest: m, data: data, begun: l.SinceBoot()}, nil
}

// create puts a's manifest into the store, and returns the object's time when it knows
// that it is there. Its errors are:
//
//   - ErrTaken: another manifest has the number; a's never was and never will be there.
//   - ErrOvertaken: another has the number; a's may have been there before it.
//   - ErrUnknown: the store did not say. Only another call of create can tell.
//   - any other: a's manifest is not in the store and never will be.
//
// It repeats the same request until the key is known to be taken, by us or by another
// writer. A read that finds nothing would prove nothing, because a request whose reply
// was lost may still be applied seconds later (I3).
func (l *Log) create(ctx context.Context, a *Attempt) (time.Time, error) {
	key := format.ManifestKey(l.Dir, a.Manifest.Seq)
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return time.Time{}, a.fail(ctx.Err())
		}
		o, err := l.Store.Create(backend.WithAttempt(ctx, n), key, a.data)
		if err == nil {
			return o.ModTime, nil
		}
		if errors.Is(err, backend.ErrExist) {
			return l.readBack(ctx, a)
		}
		a.inDoubt = a.inDoubt || !Refused(err)
		if err := l.Backoff.Again(ctx, n, err); err != nil {
			return time.Time{}, a.fail(err)
		}
	}
}

// Refused reports whether a Create that failed with err was not applied and never will
// be. The contract of backend.Store promises that for errors that are not retryable. It
// does not promise it for the end of the context.
func Refused(err error) bool {
	return !backend.Retryable(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// fail returns the error of an attempt that ends with err.
func (a *Attempt) fail(err error) error {
	if !a.inDoubt {
		return err
	}
	return &InDoubtError{fmt.Sprintf("%s manifest %d of task %q", a.Manifest.Kind, a.Manifest.Seq, a.Manifest.Task), err}
}

// An InDoubtError is an ErrUnknown with its cause, Why.
type InDoubtError struct {
	manifest string
	Why      error
}

func (e *InDoubtError) Error() string {
	return fmt.Sprintf("%s: %v: %v", e.manifest, cause.ErrUnknown, e.Why)
}

func (e *InDoubtError) Unwrap() []error { return []error{cause.ErrUnknown, e.Why} }

// readBack finds out who has taken the key of an attempt: the attempt itself, if the
// reply to an earlier request was lost, or another writer.
func (l *Log) readBack(ctx context.Context, a *Attempt) (time.Time, error) {
	seq := a.Manifest.Seq
	m, err := l.Read(ctx, seq)
	if errors.Is(err, fs.ErrNotExist) {
		// It was there a moment ago, and has been deleted. Only manifests that are long
		// superseded by newer ones are deleted, so the number is not ours.
		return time.Time{}, a.taken("its key was taken and is free again")
	}
	if errors.Is(err, cause.ErrVersion) {
		return time.Time{}, a.taken(err.Error()) // this program did not write it
	}
	if err != nil {
		a.inDoubt = true
		return time.Time{}, a.fail(err)
	}
	if m.Token != a.Manifest.Token {
		a.inDoubt = a.inDoubt && !l.neverMade(ctx, a, m)
		return time.Time{}, a.taken(fmt.Sprintf("manifest %d of task %q is from epoch %d, %s", seq, l.Task, m.Epoch, m.Who()))
	}
	a.inDoubt = true // it is ours, and only its time is still missing
	at, err := l.timeOf(ctx, seq)
	if err != nil {
		return time.Time{}, a.fail(err)
	}
	if !at.IsZero() {
		return at, nil
	}
	return time.Time{}, a.taken("it was made, and is gone")
}

// neverMade reports whether it can be shown that a's manifest never was in the store:
// manifest there has its number. It is so
//
//   - if there is the newest manifest. The newest is never deleted, so no other can have
//     had the number before it;
//   - if the newest one was made from there, which so was committed;
//   - if there was made within half a window of a's base. Had a's manifest been there
//     first, it would have been deleted before, and that takes a whole window (I5).
func (l *Log) neverMade(ctx context.Context, a *Attempt, there *format.Manifest) bool {
	newest, _, err := l.newestFrom(ctx, there.Seq)
	if err != nil || newest == there.Seq {
		return err == nil
	}
	at, err := l.timeOf(ctx, there.Seq)
	if err != nil || at.IsZero() {
		return false
	}
	if newest == there.Seq+1 {
		next, err := l.Read(ctx, newest)
		if err == nil && next.Base != nil && next.Base.Token == there.Token && SameObject(next.Base.Time, at) {
			return true
		}
	}
	base := a.Manifest.Base
	return base != nil && SameObject(base.Time, at)
}

// taken returns the error of an attempt whose number another manifest has. If the attempt
// is in doubt, its own manifest may have been the newest for a time: others may have
// continued from it, retired it and deleted it, and the other manifest may be a late one.
func (a *Attempt) taken(why string) error {
	kind := ErrTaken
	if a.inDoubt {
		kind = ErrOvertaken
	}
	return takenError{fmt.Errorf("%w: %s", kind, why), a.Manifest.Seq}
}

// Claim makes a new writer the owner of the task and returns its first manifest. next
// makes that manifest from base, the newest one, which is nil if there is none. From then
// on every earlier owner fails at its next Create (I4). After ErrUnknown the claim may be
// in the history, or may yet be.
//
// Claim starts over, and calls next again, when another writer was first, and also when
// another writer has already continued from the claim. next may return ErrGone to say that
// base is not the newest any more, which starts over too. A claim that is released at once
// is not made again once it may have been in the history.
func (l *Log) Claim(ctx context.Context, next func(base *Committed) (*format.Manifest, error)) (c *Committed, err error) {
	err = l.compete(ctx, func(bool) (err error) {
		c, err = l.tryClaim(ctx, next)
		return err
	})
	return c, err
}

// compete calls try until it is not overtaken by another writer. again says that an
// earlier attempt may have been the newest manifest for a time. An error of a later one
// is ErrUnknown then.
func (l *Log) compete(ctx context.Context, try func(again bool) error) error {
	again := false
	losses := contest{log: l}
	defer losses.end(ctx)
	for {
		err := try(again)
		again = again || errors.Is(err, ErrOvertaken)
		if errors.Is(err, ErrTaken) || errors.Is(err, ErrOvertaken) || errors.Is(err, cause.ErrGone) {
			if err = losses.lost(ctx, err); err == nil {
				continue
			}
		}
		if err != nil && again && !errors.Is(err, cause.ErrUnknown) {
			err = fmt.Errorf("%w: %w", cause.ErrUnknown, err)
		}
		return err
	}
}

// Refuse returns err, which was found out from base, the newest manifest: after it has
// made sure of base. No Create will tell that another manifest was read in its place,
// which was made late under its number. It returns ErrGone if that is so. base may
// be nil.
func (l *Log) Refuse(ctx context.Context, base *Committed, err error) error {
	if base == nil {
		return err
	}
	return cmp.Or(l.checkSame(ctx, base), err)
}

func (l *Log) tryClaim(ctx context.Context, next func(base *Committed) (*format.Manifest, error)) (*Committed, error) {
	base, err := l.Newest(ctx)
	if err != nil {
		return nil, err
	}
	m, err := next(base)
	if err != nil {
		return nil, l.Refuse(ctx, base, err)
	}
	a, err := l.NewAttempt(m)
	if err != nil {
		return nil, err
	}
	made, err := l.create(ctx, a)
	if err != nil {
		return nil, err
	}
	a.inDoubt = true // it is in the store; whether it is in the history is not known yet
	switch err := l.checkConditions(ctx, m); {
	case errors.Is(err, ErrOvertaken) && m.Released:
		return l.doneOnce(ctx, a, made, err)
	case errors.Is(err, ErrOvertaken), errors.Is(err, backend.ErrUnsupported):
		return nil, err
	case err != nil:
		return nil, a.fail(err)
	}
	// If this process slept between the read and the write, the number may
	// have been used and deleted meanwhile: see the fence window.
	newest, _, err := l.Refresh(ctx, &Committed{m, made})
	switch {
	case errors.Is(err, cause.ErrFenced) && m.Released:
		return l.doneOnce(ctx, a, made, err)
	case errors.Is(err, cause.ErrFenced):
		return nil, ErrOvertaken
	case err != nil:
		return nil, a.fail(err)
	case newest.Seq > m.Seq: // others have amended it, and it stands
		return newest, nil
	}
	if err := l.checkTimes(m.Seq, made, newest.Time); err != nil {
		return nil, a.fail(err)
	}
	return newest, nil
}

// doneOnce returns a claim that is released at once (a rollback, say, or a deletion), if
// it is in the history although others have followed. To start over would undo what these
// have done. So if it cannot be shown, the claim is in doubt, and not made again.
func (l *Log) doneOnce(ctx context.Context, a *Attempt, made time.Time, why error) (*Committed, error) {
	if l.wasFollowed(ctx, a.Manifest, made) {
		return &Committed{a.Manifest, made}, nil
	}
	a.inDoubt = true
	return nil, a.fail(why)
}

// Append commits a's manifest after base, which is the writer's own newest manifest, and
// returns it. listed says what time the last listing gave one of this writer's manifests,
// and when this process learned that; Append updates it. After ErrUnknown the outcome is
// in doubt, and only another call with the same attempt can tell. An [AmendedError] says
// that the attempt was not committed, and what the writer continues from. Append's other
// errors are those of create; one that is ErrTaken or ErrOvertaken is also ErrFenced.
func (l *Log) Append(ctx context.Context, a *Attempt, base *Committed, listed *clock.Stamp) (*Committed, error) {
	made, err := l.create(ctx, a)
	if err == nil {
		err = l.confirm(ctx, a, made, base, listed)
	}
	if err != nil {
		return l.lost(ctx, a, err)
	}
	return &Committed{a.Manifest, made}, nil
}

// confirm makes sure that the manifest which was just created is not a late one. If
// another writer made base's successor, and it has been deleted since, a Create of that
// number succeeds although the history has gone on. But a manifest is not deleted within
// the fence window. So nothing needs to be checked unless more than half the window lies
// between the two manifests, by the store's clock (I5).
//
// That argument needs replies and listings to tell the same time. The claim has checked
// that, but a proxy may have been added since. If the reply's time differs from what the
// owner's own clock predicts, confirm lists as well.
//
// It also needs A4. On file://, the store's clock is the machine's, which somebody may set
// back while the owner sleeps. So confirm lists as well if more than a quarter of the
// window has passed by the machine's time since boot, which nobody can set. The owner's
// clocks decide nothing else.
func (l *Log) confirm(ctx context.Context, a *Attempt, made time.Time, base *Committed, listed *clock.Stamp) error {
	away := made.Sub(base.Time)
	apart := made.Sub(listed.Store) - listed.Passed()
	passed := l.SinceBoot() - listed.Boot
	if away >= 0 && away <= FenceWindow/2 && apart.Abs() <= maxApart && passed <= FenceWindow/4 {
		listed.Boot = a.begun
		return nil
	}
	at, err := l.confirmByList(ctx, a, made)
	if err == nil && !at.IsZero() {
		*listed = clock.Now(at)
	}
	if err == nil {
		listed.Boot = a.begun
	}
	return err
}

// AppendOnce commits m, the only manifest of its writer. An error that wraps both
// ErrConflict and ErrUnknown says that other writers have made later manifests, and that
// m may have been committed before them. Its other errors are those of create.
//
// trusted says that the store is known to honour conditions. If not, that is made sure of
// for a task's first manifests.
func (l *Log) AppendOnce(ctx context.Context, m *format.Manifest, trusted bool) (*Committed, error) {
	a, err := l.NewAttempt(m)
	if err != nil {
		return nil, err
	}
	at, err := l.create(ctx, a)
	if err == nil {
		a.inDoubt = true
		at, err = l.confirmOnce(ctx, a, at, trusted)
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

// confirmOnce makes sure that a save's manifest, which is in the store, is in the history
// too. What the save read before may be old, and its number may have been used and
// deleted meanwhile. It returns the manifest's time: that of the listing, which everyone else
// sees, if there is one. The reply may tell it to the second only.
func (l *Log) confirmOnce(ctx context.Context, a *Attempt, made time.Time, trusted bool) (time.Time, error) {
	if a.Manifest.Seq <= 2 && !trusted { // the first writer may have died before it did this check
		if err := l.checkConditions(ctx, a.Manifest); err != nil {
			return made, err
		}
	}
	listed, err := l.confirmByList(ctx, a, made)
	if listed.IsZero() {
		return made, err
	}
	return listed, err
}

// confirmByList makes sure that a's manifest, which is in the store, is in the history:
// it is the newest, or a later one retains its checkpoint. replied is its time in the
// reply to the Create. If it is not in the history the error is ErrOvertaken; if that
// cannot be found out, ErrUnknown. It returns the time in the listing, or zero if there
// is a later manifest.
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
		return time.Time{}, nil // others have continued from it
	}
	return time.Time{}, a.taken(fmt.Sprintf("manifest %d of task %q is the newest", seq, l.Task))
}
