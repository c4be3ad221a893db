package checkpoint

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file is the commit protocol: how a manifest becomes the next step in a
// task's history, exactly once, whatever the store answers or fails to answer.
// docs/protocol.md has the argument; the names I1..I7 there are used here.

// FenceWindow is how old a manifest must be, by the store's clock, before it
// may be deleted. An owner that was away for more than half of it makes sure
// that it is still the owner. It is one constant for everyone, because an
// owner and a collector that disagreed on it could hurt each other.
const FenceWindow = time.Hour

// maxApart is by how much two times may differ that the store tells of one object:
// in the reply to its Create, and in a listing. A4 allows a quarter of the fence window
// between any two times. One may be told too early by that much and the other too late,
// which takes two thirds of the quarter, and leaves a third to the store's own clocks.
// Kerberos allows as much between two machines (RFC 4120); clocks that are kept by NTP
// are within a second.
const maxApart = FenceWindow / 12

// isSame reports whether the object that was written at one time is the one that
// was found with another before, and so whether what was read in between is.
// Once a manifest is deleted, one who slept may make another of its number, which
// is no step: but not before a whole window has gone by, less the quarter that
// the store's clock may be wrong by.
func isSame(before, at time.Time) bool { return at.Sub(before).Abs() <= FenceWindow/2 }

// history is one task's manifests.
type history struct {
	store   backend.Store
	name    string // the task's
	dir     string // in keys
	backoff backend.Backoff
}

// A step is a manifest that is in the store.
type step struct {
	*format.Manifest
	time time.Time // of the object, by the store's clock: as a reply or a listing told it
}

// errLost means that another manifest stands under the number of ours.
var errLost = errors.New("another writer was first")

// A lostNumber is an errLost or an errOvertaken that knows the number.
type lostNumber struct {
	error
	seq uint64
}

func (l lostNumber) Unwrap() error { return l.error }

// newest returns the last step, or nil if there is none. It sends two
// requests, however long the history is.
func (h *history) newest(ctx context.Context) (*step, error) {
	for range 3 {
		seq, at, err := h.newestSeq(ctx)
		if err != nil || seq == 0 {
			return nil, err
		}
		m, err := h.read(ctx, seq)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since, so there are newer ones
		}
		if err != nil {
			return nil, err
		}
		return &step{m, at}, nil
	}
	return nil, fmt.Errorf("task %q: the store lists a newest manifest that it does not have", h.name)
}

// newestReadable returns the last step that is not damaged, or nil. It is for
// readers only: a writer must know the last one.
func (h *history) newestReadable(ctx context.Context) (*step, error) {
	for o, err := range h.store.List(ctx, format.ManifestPrefix(h.dir), "") {
		if err != nil {
			return nil, err
		}
		_, seq, ok := format.ParseManifestKey(o.Key)
		if !ok {
			continue
		}
		m, err := h.read(ctx, seq)
		if err == nil {
			return &step{m, o.ModTime}, nil
		}
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, nil
}

// newestSeq returns the number and the time of the last step, or zero if there
// is none. It sends one request.
func (h *history) newestSeq(ctx context.Context) (uint64, time.Time, error) {
	for o, err := range h.store.List(ctx, format.ManifestPrefix(h.dir), "") {
		if err != nil {
			return 0, time.Time{}, err
		}
		if _, seq, ok := format.ParseManifestKey(o.Key); ok {
			return seq, o.ModTime, nil
		}
	}
	return 0, time.Time{}, nil
}

// timeOf returns the time of manifest number seq, or zero if it is not there.
func (h *history) timeOf(ctx context.Context, seq uint64) (time.Time, error) {
	for o, err := range h.store.List(ctx, format.ManifestKey(h.dir, seq), "") {
		return o.ModTime, err
	}
	return time.Time{}, nil
}

// read returns manifest number seq.
func (h *history) read(ctx context.Context, seq uint64) (*format.Manifest, error) {
	key := format.ManifestKey(h.dir, seq)
	p := make([]byte, format.MaxManifest+1)
	n, err := h.store.Get(ctx, key, 0, p)
	if err != nil {
		return nil, err
	}
	m, err := format.DecodeManifest(p[:n], h.name, seq)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", key, err)
	}
	return m, nil
}

// An attempt is one manifest on its way into the store. Its token makes its
// bytes unlike those of every other attempt.
type attempt struct {
	manifest *format.Manifest
	data     []byte
	open     bool // a request may have been applied, or may yet be
}

func newAttempt(m *format.Manifest) (*attempt, error) {
	rand.Read(m.Token[:])
	data, err := m.Encode()
	if err != nil {
		return nil, fmt.Errorf("task %q: %w", m.Task, err)
	}
	return &attempt{manifest: m, data: data}, nil
}

// create puts a's manifest into the store and returns when it knows what came
// of it, with the object's time. Its errors are:
//
//   - errLost: another manifest has the number; a's was and will never be there.
//   - errOvertaken: another has the number; a's may have been there before it.
//   - ErrUnknown: the store did not say. Only another call of create can tell.
//   - any other: a's manifest is not in the store and never will be.
//
// It sends the same request until the key is known to be taken, by us or by
// another: a read that finds nothing would prove nothing, because a request
// whose reply was lost may still be applied seconds later (I3).
func (h *history) create(ctx context.Context, a *attempt) (time.Time, error) {
	key := format.ManifestKey(h.dir, a.manifest.Seq)
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return time.Time{}, a.fail(ctx.Err())
		}
		o, err := h.store.Create(ctx, key, a.data)
		if err == nil {
			return o.ModTime, nil
		}
		if errors.Is(err, backend.ErrExist) {
			return h.readBack(ctx, a)
		}
		a.open = a.open || !refused(err)
		if err := h.backoff.Again(ctx, n, err); err != nil {
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
func (a *attempt) fail(err error) error {
	if !a.open {
		return err
	}
	return fmt.Errorf("%s manifest %d of task %q: %w: %w", a.manifest.Kind, a.manifest.Seq, a.manifest.Task, ErrUnknown, err)
}

// readBack settles an attempt whose key is taken: by itself, if an earlier
// reply was lost, or by another writer.
func (h *history) readBack(ctx context.Context, a *attempt) (time.Time, error) {
	seq := a.manifest.Seq
	m, err := h.read(ctx, seq)
	if errors.Is(err, fs.ErrNotExist) {
		// Taken a moment ago, and gone: only a manifest that newer ones have
		// long followed is ever deleted.
		return time.Time{}, a.lost("its key was taken and is free again")
	}
	if err != nil {
		a.open = true
		return time.Time{}, a.fail(err)
	}
	if m.Token != a.manifest.Token {
		return time.Time{}, a.lost(fmt.Sprintf("manifest %d of task %q is from epoch %d, writer %s", seq, h.name, m.Epoch, m.Writer))
	}
	a.open = true // it is ours; what remains is to learn its time
	at, err := h.timeOf(ctx, seq)
	if err != nil {
		return time.Time{}, a.fail(err)
	}
	if !at.IsZero() {
		return at, nil
	}
	return time.Time{}, a.lost("it was made, and is gone")
}

// lost returns the error of an attempt whose number is not its own. If an
// earlier request of it may have been applied, it may have been a step: others
// may have gone on from it, retired and deleted it, and a manifest that came
// late may stand under its number now.
func (a *attempt) lost(why string) error {
	kind := errLost
	if a.open {
		kind = errOvertaken
	}
	return lostNumber{fmt.Errorf("%w: %s", kind, why), a.manifest.Seq}
}

// seen makes sure, after an attempt was lost to a manifest, that the store lists
// that or a later one. What answers a List as if there were nothing, a proxy
// say, would have its caller start over for ever, or take the task for new.
func (h *history) seen(ctx context.Context, lost error) error {
	var taken lostNumber
	if !errors.As(lost, &taken) {
		return nil
	}
	seq, _, err := h.newestSeq(ctx)
	if err != nil || seq >= taken.seq {
		return err
	}
	return h.hidden(taken.seq)
}

// hidden is the error of a store that lists less than it has.
func (h *history) hidden(seq uint64) error {
	return fmt.Errorf("task %q: the store says that %s exists, and lists no manifest from that on: "+
		"check the endpoint, and what stands between: %w",
		h.name, format.ManifestKey(h.dir, seq), backend.ErrUnsupported)
}

// prove makes sure that the store refuses to create what exists, once step m
// is in it, by repeating its Create with other bytes. A store that ignores
// the condition would let two owners overwrite each other unseen. Every claim
// does so, and the first saves: a job may be copied to another store.
func (h *history) prove(ctx context.Context, m *format.Manifest) error {
	other := *m
	again, err := newAttempt(&other)
	if err != nil {
		return err
	}
	key := format.ManifestKey(h.dir, m.Seq)
	for n := 1; ; n++ {
		_, err := h.store.Create(ctx, key, again.data)
		if errors.Is(err, backend.ErrExist) {
			return nil
		}
		if err == nil {
			return h.proven(ctx, m, key)
		}
		if err := h.backoff.Again(ctx, n, err); err != nil {
			return fmt.Errorf("finding out whether the store honours conditional writes: %w", err)
		}
	}
}

// proven says what it means that a second Create of step m succeeded: the
// store is careless, unless the task has gone on so far that m was deleted.
func (h *history) proven(ctx context.Context, m *format.Manifest, key string) error {
	seq, _, err := h.newestSeq(ctx)
	if err != nil {
		return err
	}
	if seq > m.Seq {
		return fmt.Errorf("%w, to number %d", errOvertaken, seq)
	}
	return errors.Join(h.refuse(key), h.store.Delete(ctx, key))
}

func (h *history) refuse(key string) error {
	return fmt.Errorf("the store let a second write to %s replace the first, although both asked to create it: "+
		"two owners could destroy each other's checkpoints; use a store that honours conditional writes: %w",
		key, backend.ErrUnsupported)
}

// claim makes a new writer the owner of the task and returns its first step,
// which next makes of the step before. From then on every earlier owner fails
// at its next Create (I4). After ErrUnknown it may be a step, or may yet become
// one.
//
// next is called again when another writer was first, and also when one has
// gone on from what was made of it already. Its ErrGone says that base is not the
// last step any more, and its ErrClaimed that nothing was made of it.
func (h *history) claim(ctx context.Context, next func(base *step) (*format.Manifest, error)) (*step, error) {
	unsure := false // an earlier attempt may have been a step
	for n := 1; ; n++ {
		s, err := h.tryClaim(ctx, next)
		unsure = unsure || errors.Is(err, errOvertaken)
		if errors.Is(err, errLost) || errors.Is(err, errOvertaken) || errors.Is(err, ErrGone) {
			if err = h.startOver(ctx, n, err); err == nil {
				continue
			}
		}
		if err != nil && unsure && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrClaimed) {
			err = fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		return s, err
	}
}

// startOver waits to start over after an attempt was lost.
func (h *history) startOver(ctx context.Context, n int, lost error) error {
	if err := h.seen(ctx, lost); err != nil {
		return err
	}
	if err := h.backoff.Wait(ctx, n); err != nil {
		return fmt.Errorf("claim of task %q: %w", h.name, err)
	}
	return nil
}

func (h *history) tryClaim(ctx context.Context, next func(base *step) (*format.Manifest, error)) (*step, error) {
	base, err := h.newest(ctx)
	if err != nil {
		return nil, err
	}
	m, err := next(base)
	if err != nil {
		return nil, err
	}
	a, err := newAttempt(m)
	if err != nil {
		return nil, err
	}
	made, err := h.create(ctx, a)
	if err != nil {
		return nil, err
	}
	a.open = true // it is in the store, whether that comes out or not
	switch err := h.prove(ctx, m); {
	case errors.Is(err, errOvertaken), errors.Is(err, backend.ErrUnsupported):
		return nil, err
	case err != nil:
		return nil, a.fail(err)
	}
	// If this process slept between the read and the write, the number may
	// have been used and deleted meanwhile: see the fence window.
	seq, at, err := h.newestSeq(ctx)
	if err != nil {
		return nil, a.fail(err)
	}
	switch {
	case seq > m.Seq:
		return nil, errOvertaken
	case seq < m.Seq:
		return nil, a.fail(h.hidden(m.Seq))
	}
	if err := h.agree(m.Seq, made, at); err != nil {
		return nil, a.fail(err)
	}
	return &step{m, at}, nil
}

// agree makes sure that the reply to the Create of manifest seq and a listing tell
// the same time of it. Ages are told from both (A4), and a proxy that sets the Date
// of replies itself, by a clock that is wrong, would make them mean nothing.
func (h *history) agree(seq uint64, replied, listed time.Time) error {
	if listed.Sub(replied).Abs() <= maxApart {
		return nil
	}
	return fmt.Errorf("task %q: the store tells two times of %s: %s in its reply, and %s in its listing. "+
		"They must agree within %v, because who is fenced and what is old is told by both. "+
		"The cause is usually a reverse proxy that sets the Date of replies by a clock of its own: "+
		"let it pass the store's Date on (nginx: proxy_pass_header Date), or correct the clock that is wrong: %w",
		h.name, format.ManifestKey(h.dir, seq), replied.UTC().Format(time.RFC3339), listed.UTC().Format(time.RFC3339),
		maxApart, backend.ErrUnsupported)
}

// follow returns the manifest after base by a new writer: it repeats base's
// checkpoint, which keeps the number and the time of its own manifest.
func (h *history) follow(base *step, kind format.Kind, w format.WriterID) *format.Manifest {
	m := &format.Manifest{Kind: kind, Task: h.name, Seq: 1, Epoch: 1, Writer: w}
	if base == nil {
		return m
	}
	m.Seq, m.Epoch = base.Seq+1, base.Epoch+1
	m.Retained, m.RetainedAt = base.Retained, base.RetainedAt
	m.Checkpoint = base.checkpoint()
	return m
}

// checkpoint returns the step's checkpoint, with its time, or nil.
func (s *step) checkpoint() *format.Checkpoint {
	if s == nil || s.Checkpoint == nil {
		return nil
	}
	c := *s.Checkpoint
	if c.Seq == s.Seq {
		c.Time = s.time
	}
	return &c
}

// errOvertaken means that a manifest is in the store, and that the history has
// gone on without its checkpoint: it never became a step, or it was one and its
// checkpoint has been retired since.
var errOvertaken = errors.New("the task has gone on without it")

// look makes sure that a's manifest, which is in the store since the time that the
// reply told, is in the history: it is the last step, or a later one retains its
// checkpoint. Its error is errOvertaken if it is not, or ErrUnknown. It returns the
// time that the listing tells, or zero if others have gone on.
func (t *Task) look(ctx context.Context, a *attempt, replied time.Time) (listed time.Time, err error) {
	a.open = true
	seq, at, err := t.history.newestSeq(ctx)
	if err != nil {
		return time.Time{}, a.fail(err)
	}
	if seq == a.manifest.Seq {
		if err := t.history.agree(seq, replied, at); err != nil {
			return time.Time{}, a.fail(err)
		}
		return at, nil
	}
	if seq < a.manifest.Seq {
		return time.Time{}, a.fail(t.history.hidden(a.manifest.Seq))
	}
	all, err := t.allForSure(ctx)
	if err != nil {
		return time.Time{}, a.fail(err)
	}
	if slices.ContainsFunc(all, func(r format.Retained) bool { return r.Seq == a.manifest.Seq }) {
		return time.Time{}, nil // others have gone on from it
	}
	return time.Time{}, fmt.Errorf("manifest %d of task %q: %w, to number %d", a.manifest.Seq, t.Name(), errOvertaken, seq)
}

// What newWriter is told of a writer.
const (
	claimsFirst   = true  // it sends no segment before its claim is a step
	segmentsFirst = false // it may
)

func newWriter(first bool) (w format.WriterID) {
	rand.Read(w[:])
	return w.WithClaimsFirst(first)
}
