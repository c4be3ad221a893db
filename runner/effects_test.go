package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// A broker is a message queue that takes each id once, as those do that drop duplicates.
type broker struct {
	w *world

	mu    sync.Mutex
	ids   map[string]bool
	calls int
	fail  error
}

// publish publishes the messages up to one of a number. All of these must be committed.
func (b *broker) publish(_ context.Context, c *checkpoint.Checkpoint, prepared string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if b.fail != nil {
		return b.fail
	}
	upTo, err := strconv.Atoi(prepared)
	if err != nil {
		return err
	}
	if _, n := b.w.latest("a"); upTo > n || prepared != c.Offsets["in"] {
		b.w.t.Errorf("messages up to %d are published, by a checkpoint of %s; %d are committed", upTo, c.Offsets["in"], n)
	}
	for n := range upTo {
		b.ids[fmt.Sprint("a/", n+1)] = true // an id that follows from the input
	}
	return nil
}

func (b *broker) failWith(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = err
}

func (b *broker) wantPublished(n int) {
	b.w.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ids) != n {
		b.w.t.Errorf("%d messages are published; want %d", len(b.ids), n)
	}
}

func newBroker(w *world) *broker { return &broker{w: w, ids: make(map[string]bool)} }

// A publisher is a host whose steps each have a message for the broker.
type publisher struct{ *host }

func (p publisher) Cut(ctx context.Context) (Cut, error) {
	cut, err := p.host.Cut(ctx)
	if n := p.sum(); n > 0 {
		cut.Prepared = strconv.Itoa(n)
	}
	return cut, err
}

// publishes makes a host a publisher.
func publishes(b *broker) func(*Spec) {
	return func(s *Spec) {
		open := s.Open
		s.Open = func(ctx context.Context, restored *Restored) (Cutter, error) {
			h, err := open(ctx, restored)
			return publisher{h.(*host)}, err
		}
		s.Hooks.Complete = b.publish
	}
}

// What a cut has prepared is completed when the checkpoint is committed, and not if it is not.
func TestEffectsFollowTheCommit(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		b := newBroker(w)
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: Manual, CommitTimeout: time.Minute})
		task, h := w.own(r, "a", publishes(b))
		h.mustAdd(task)
		b.wantPublished(0)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.wantPublished(1)

		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", Err: backend.ErrPermission, On: 1})
		h.mustAdd(task)
		if _, err := task.Commit(t.Context()); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("%v; want ErrPermission", err)
		}
		b.wantPublished(1)

		// A commit in doubt is completed when it is known that it was made.
		store.Arm(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1}, faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create"})
		if _, err := task.Commit(t.Context()); !errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("%v; want ErrUnknown", err)
		}
		b.wantPublished(1)
		store.Disarm()
		h.mustAdd(task)
		b.failWith(errHost)
		if _, err := task.Commit(t.Context()); !errors.Is(err, errHost) { // the commit in doubt is settled, and there is no cut before it is completed
			t.Errorf("%v; want the broker's error", err)
		}
		if _, n := w.latest("a"); n != 2 {
			t.Errorf("%d is committed; want 2", n)
		}
		b.failWith(nil)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.wantPublished(3)
	})
}

// Whoever goes on from a checkpoint completes what it has prepared, before its state is
// opened, whatever the one before has done. A fork completes nothing of its source.
func TestEffectsAfterACrash(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		b := newBroker(w)
		first, kill := w.crashing(Options{Interval: Manual})
		task, h := w.own(first, "a", publishes(b))
		h.mustAdd(task)
		b.failWith(errHost) // as if it was killed before that
		if _, err := task.Commit(t.Context()); err != nil {
			t.Errorf("the checkpoint stands, and Commit returned %v", err)
		}
		kill()
		r := w.runner(w.job(), Options{Interval: Manual})
		other := func(s *Spec) { s.Dir += "-2" }
		if _, _, err := w.tryOwn(r, "a", other, publishes(b)); !errors.Is(err, errHost) {
			t.Errorf("%v; want the broker's error, because the next commit would forget", err)
		}
		b.failWith(nil)
		if _, _, err := w.tryOwn(r, "a", other); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("without the hook: %v; want ErrInvalid", err)
		}
		b.wantPublished(0)
		next, heir, err := w.tryOwn(r, "a", other, publishes(b), func(s *Spec) {
			open := s.Open
			s.Open = func(ctx context.Context, restored *Restored) (Cutter, error) {
				b.wantPublished(1)
				return open(ctx, restored)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		heir.mustAdd(next)
		if err := next.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.wantPublished(2)

		in, err := w.looker.Task("a")
		if err == nil {
			_, err = in.Fork(t.Context(), "fork", checkpoint.ForkOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		calls := b.calls
		w.own(r, "fork", publishes(b))
		if b.calls != calls {
			t.Error("a fork completes what its source has prepared")
		}
	})
}

// What the last commit has prepared is completed before the task is released, or else by the
// next owner, and Release says so.
func TestEffectsAtTheEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		b := newBroker(w)
		r := w.runner(w.job(), Options{Interval: Manual})
		task, h := w.own(r, "a", publishes(b))
		h.mustAdd(task)
		b.failWith(errHost)
		if err := task.Release(t.Context()); !errors.Is(err, errHost) {
			t.Errorf("%v; want the broker's error", err)
		}
		b.failWith(nil)
		w.own(r, "a", publishes(b))
		b.wantPublished(1)
	})
}

func TestEffectsThatCannotBe(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		b := newBroker(w)
		r := w.runner(w.job(), Options{Interval: Manual})
		task, h := w.own(r, "a", publishes(b), func(s *Spec) { s.Hooks.Complete = nil })
		h.mustAdd(task)
		if _, err := task.Commit(t.Context()); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("nothing completes it: %v", err)
		}
		task.spec.Hooks.Complete = b.publish
		if err := task.checkPrepared(&Cut{Prepared: strings.Repeat("x", maxPrepared)}); err != nil {
			t.Error(err)
		}
		if err := task.checkPrepared(&Cut{Prepared: strings.Repeat("x", maxPrepared+1)}); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("too much: %v", err)
		}
	})
}

// Under every fault at every call, all that is committed is published in the end, and nothing
// else ever is: that is checked by the broker.
func TestEffectsUnderEveryFault(t *testing.T) {
	for _, fault := range troubles {
		t.Run(fmt.Sprint(fault.Kind, " ", fault.Verb, " ", fault.Err), func(t *testing.T) {
			t.Parallel() // most of the time is the disk's
			for fault.On = 1; ; fault.On++ {
				struck := false
				inWorld(t, func(t *testing.T, w *world) { struck = effectsUnderFault(t, w, fault) })
				if !struck || t.Failed() {
					break
				}
			}
			if fault.On < 3 {
				t.Error("it struck hardly any call")
			}
		})
	}
}

// effectsUnderFault reports whether the fault struck.
func effectsUnderFault(t *testing.T, w *world, fault faultstore.Fault) bool {
	b := newBroker(w)
	first, _ := w.own(w.runner(w.job(), Options{Interval: Manual}), "a", publishes(b))
	if err := first.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	var store *faultstore.Store
	r := w.runner(w.job(faulty(&store)), Options{Interval: Manual, CommitTimeout: time.Minute})
	store.Arm(fault)
	if task, h, err := w.tryOwn(r, "a", publishes(b)); err == nil {
		for n := range 3 {
			_ = h.add(t.Context(), task)
			if n == 1 {
				b.failWith(errHost)
			}
			_, _ = task.Commit(t.Context())
			b.failWith(nil)
		}
		_ = task.Abandon(t.Context())
		<-task.Done()
	}
	struck := len(store.Unfired()) == 0
	store.Disarm()
	store.Land()
	task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a", publishes(b))
	_, n := w.latest("a")
	b.wantPublished(n)
	h.mustAdd(task)
	if err := task.Release(t.Context()); err != nil {
		t.Error(err)
	}
	b.wantPublished(n + 1)
	return struck
}

// Files that are renamed into place are there when the checkpoint that has them is committed,
// and not before.
func TestFilesAreRenamedIntoPlace(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		place := t.TempDir()
		staged, published := filepath.Join(place, "staged"), filepath.Join(place, "published")
		if err := errors.Join(os.Mkdir(staged, 0o700), os.Mkdir(published, 0o700)); err != nil {
			t.Fatal(err)
		}
		crashed := errors.New("crash")
		var crash error
		spec := func(s *Spec) {
			open := s.Open
			s.Open = func(ctx context.Context, restored *Restored) (Cutter, error) {
				h, err := open(ctx, restored)
				return stager{h.(*host), staged}, err
			}
			s.Hooks.Complete = func(_ context.Context, _ *checkpoint.Checkpoint, prepared string) error {
				if crash != nil {
					return crash
				}
				return moveAll(staged, published, strings.Fields(prepared))
			}
		}
		names := func() string {
			entries, err := os.ReadDir(published)
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, e := range entries {
				all = append(all, e.Name())
			}
			return strings.Join(all, " ")
		}
		r := w.runner(w.job(), Options{Interval: Manual})
		task, h := w.own(r, "a", spec)
		for range 2 {
			h.mustAdd(task)
			if _, err := task.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := names(); got != "part-1 part-2" {
			t.Errorf("published: %s", got)
		}
		h.mustAdd(task)
		crash = crashed
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := task.Abandon(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := names(); got != "part-1 part-2" {
			t.Errorf("published: %s", got)
		}
		crash = nil
		for range 2 { // once more does not matter
			if task, _ = w.own(r, "a", spec); names() != "part-1 part-2 part-3" {
				t.Errorf("published: %s", names())
			}
			if err := task.Abandon(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A stager writes one file for each cut, into a directory that all hosts share.
type stager struct {
	*host
	dir string
}

func (s stager) Cut(ctx context.Context) (Cut, error) {
	cut, err := s.host.Cut(ctx)
	if n := s.sum(); err == nil && n > 0 {
		cut.Prepared = fmt.Sprint("part-", n) // a name that follows from the input
		err = os.WriteFile(filepath.Join(s.dir, cut.Prepared), []byte("rows"), 0o600)
	}
	return cut, err
}

// moveAll moves files into a directory, unless they are there already.
func moveAll(from, to string, names []string) error {
	for _, name := range names {
		err := os.Rename(filepath.Join(from, name), filepath.Join(to, name))
		if errors.Is(err, os.ErrNotExist) {
			_, err = os.Stat(filepath.Join(to, name)) // it was moved before
		}
		if err != nil {
			return err
		}
	}
	return nil
}
