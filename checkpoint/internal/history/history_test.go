package history

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint/internal/cause"
	"github.com/holdfast-io/holdfast/checkpoint/internal/clock"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/segment"
)

// Most of this package is tested through package checkpoint: by the fault matrix, the
// explorer, and the scenarios there. These are single answers that a scenario hardly reaches.

// A place is a store whose clock is set by hand, and the history of a task in it.
type place struct {
	*testing.T
	store *hooked
	log   *Log
	now   time.Time
}

// hooked is a store that calls functions after its requests, if they are set.
type hooked struct {
	backend.Store
	created func(error) error
	got     func(key string)
	listed  func() error
}

func (s *hooked) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	o, err := s.Store.Create(ctx, key, data)
	if s.created != nil {
		err = s.created(err)
	}
	return o, err
}

func (s *hooked) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	n, err := s.Store.Get(ctx, key, offset, p)
	if s.got != nil {
		s.got(key)
	}
	return n, err
}

func (s *hooked) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	if s.listed != nil {
		if err := s.listed(); err != nil {
			return func(yield func(backend.Object, error) bool) { yield(backend.Object{}, err) }
		}
	}
	return s.Store.List(ctx, prefix, after)
}

func newPlace(t *testing.T) *place {
	p := &place{T: t, now: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)}
	p.store = &hooked{Store: mem.NewBucket(func() time.Time { return p.now }).Open()}
	p.log = &Log{
		Store: p.store, Task: "a", Dir: "a", Backoff: backend.Backoff{Attempts: 1}, SinceBoot: func() time.Duration { return 0 },
		Segments: &segment.Reader{Store: p.store, Codec: codec.New(), Task: "a", Dir: "a"},
	}
	return p
}

// manifest returns a commit by a writer that retains others.
func (p *place) manifest(seq, epoch uint64, others ...format.Retained) *format.Manifest {
	m := &format.Manifest{Kind: format.KindCommit, Task: "a", Seq: seq, Epoch: epoch, Writer: format.WriterID{byte(epoch)}, Retained: others}
	m.Checkpoint = &format.Checkpoint{Seq: seq, Epoch: epoch, Content: &format.Content{}}
	return m
}

// put puts a manifest into the store.
func (p *place) put(m *format.Manifest) *Committed {
	p.Helper()
	a := p.attempt(m)
	o, err := p.store.Store.Create(p.Context(), format.ManifestKey("a", m.Seq), a.data)
	if err != nil {
		p.Fatal(err)
	}
	return &Committed{m, o.ModTime}
}

func (p *place) attempt(m *format.Manifest) *Attempt {
	p.Helper()
	a, err := p.log.NewAttempt(m)
	if err != nil {
		p.Fatal(err)
	}
	return a
}

func (p *place) remove(seq uint64) {
	p.Helper()
	if err := p.store.Delete(p.Context(), format.ManifestKey("a", seq)); err != nil {
		p.Fatal(err)
	}
}

// What is made late under a number comes a whole window after the one that was deleted, and
// the store's clock may be wrong by a quarter of it, each time (I5, A4).
func TestSameObject(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for after, want := range map[time.Duration]bool{
		0: true, FenceWindow / 2: true, -FenceWindow / 2: true,
		FenceWindow/2 + 1: false, -FenceWindow/2 - 1: false, FenceWindow: false,
	} {
		if got := SameObject(at, at.Add(after)); got != want {
			t.Errorf("%v after: %v", after, got)
		}
	}
}

// The newest manifest is read, and then it is gone: it was long superseded, and what was read
// may have been made late under its number.
func TestNewestManifestIsGoneWhenItWasRead(t *testing.T) {
	p := newPlace(t)
	p.put(p.manifest(1, 1))
	p.store.got = func(string) {
		p.store.got = nil
		p.put(p.manifest(2, 1))
		p.remove(1)
	}
	if c, err := p.log.NewestForCertain(t.Context()); !errors.Is(err, cause.ErrGone) {
		t.Errorf("%+v, %v; want ErrGone", c, err)
	}
}

// The manifest of a checkpoint was read, and by now the checkpoint is retired and the manifest
// is gone: what was read may have been made late under its number.
func TestRetainedManifestIsGoneWhenItWasRead(t *testing.T) {
	p := newPlace(t)
	c := p.put(p.manifest(1, 1))
	r := format.Retained{Seq: 1, Time: c.Time}
	p.put(p.manifest(2, 1))
	p.remove(1)
	if late, err := p.log.MadeLate(t.Context(), []format.Retained{r}); err != nil || len(late) != 1 {
		t.Errorf("%v, %v; want that it may be late", late, err)
	}
}

// A client may repeat a request whose reply was lost, and return what came of the second one:
// that the manifest exists. It is ours. If its time cannot be asked for, that is no proof that
// it is not there.
func TestManifestIsThereAndItsTimeIsNotKnown(t *testing.T) {
	p := newPlace(t)
	p.store.created = func(err error) error { return errors.Join(err, backend.ErrExist) }
	p.store.listed = func() error { return backend.ErrPermission }
	if _, err := p.log.create(t.Context(), p.attempt(p.manifest(1, 1))); !errors.Is(err, cause.ErrUnknown) || !errors.Is(err, backend.ErrPermission) {
		t.Errorf("%v; want ErrUnknown", err)
	}
}

// The store's clock was set back while an owner slept, so that its commit seems to come just
// before the one before it, and nothing tells how long it slept. Others have gone on.
func TestCommitSeemsToComeBeforeTheOneBefore(t *testing.T) {
	p := newPlace(t)
	base := p.put(p.manifest(1, 1))
	p.put(p.manifest(3, 2)) // another writer's; it has had number 2 as well, which is deleted
	p.now = base.Time.Add(-time.Second)
	listed := clock.Now(p.now)
	a := p.attempt(p.manifest(2, 1))
	made, err := p.log.create(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.log.confirm(t.Context(), a, made, base, &listed); !errors.Is(err, ErrOvertaken) {
		t.Errorf("%v; want ErrOvertaken", err)
	}
}
