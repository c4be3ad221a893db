package checkpoint_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// hooked calls before with the method and the key or prefix of each call.
type hooked struct {
	backend.Store
	before func(verb, key string)
}

func (s hooked) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	s.before("create", key)
	return s.Store.Create(ctx, key, data)
}

func (s hooked) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	s.before("get", key)
	return s.Store.Get(ctx, key, offset, p)
}

func (s hooked) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	s.before("list", prefix)
	return s.Store.List(ctx, prefix, after)
}

func (w *world) hookedTask(opts checkpoint.Options, before func(verb, key string)) *checkpoint.Task {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	job := newJob(w, hooked{w.bucket.Open(), before}, opts)
	task, err := job.Task("orders/7")
	if err != nil {
		w.Fatal(err)
	}
	return task
}

// An owner that commits less often than twice per fence window confirms its commit by
// a List. Another process claims between the Create and that List: the commit is in
// the history, and is the base of that claim.
func TestCommitIsFoundUnderAClaimMadeWhileItLists(t *testing.T) {
	inWorld(t, func(w *world) {
		var armed atomic.Bool // the clean-up lists too
		var heir *checkpoint.Owner
		task := w.hookedTask(checkpoint.Options{Memory: 1 << 20}, func(verb, key string) {
			if verb == "list" && armed.CompareAndSwap(true, false) {
				heir, _ = w.owner()
			}
		})
		o := claim(w, task)
		commit(w, o, with(1, 20<<10))
		time.Sleep(checkpoint.FenceWindow/2 + time.Minute)
		armed.Store(true)
		if _, err := o.Commit(w.Context(), with(2, 20<<10)); err != nil {
			t.Errorf("commit: %v", err)
		}
		synctest.Wait()
		w.wantReadable()
		if heir == nil {
			t.Fatal("nobody claimed the task")
		}
		c, err := heir.Checkpoint(w.Context())
		if err != nil || c.Offsets["in"] != "2" {
			t.Fatalf("heir goes on from %+v, %v", c, err)
		}
	})
}

// A release was made, but its outcome was in doubt; then the owner tries to commit.
func TestNoCommitAfterAReleaseOfUnknownOutcome(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.owner(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1},
			faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create"})
		if err := o.Release(w.Context()); !errors.Is(err, checkpoint.ErrUnknown) {
			t.Fatalf("release: %v", err)
		}
		store.Heal()
		task, _, _ := w.process()
		if s, err := task.Status(w.Context()); err != nil || s.Claimed {
			t.Fatalf("status %+v, %v", s, err)
		}
		if c, err := o.Commit(w.Context(), at(1)); err == nil {
			t.Errorf("commit %d after a manifest that says that there will be none", c.Seq)
		}
		if err := o.Release(w.Context()); err != nil {
			t.Errorf("the release once more: %v", err)
		}
	})
}

// A save is committed, and other processes go on from it and retire it before the
// save lists. It must not report that nothing was saved.
func TestSaveThatWasRetiredAtOnceIsUnknown(t *testing.T) {
	inWorld(t, func(w *world) {
		lists := 0
		task := w.hookedTask(checkpoint.Options{}, func(verb, key string) {
			if verb == "list" && strings.Contains(key, manifests) {
				if lists++; lists == 2 {
					heir, _ := w.ownerWith(lastOne)
					commit(w, heir, at(2))
				}
			}
		})
		if _, err := task.Save(w.Context(), at(1), checkpoint.SaveOptions{}); !errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("save: %v, want ErrUnknown: it was committed, and another went on from it", err)
		}
	})
}

// Without the right to delete, what the owner remembers must not grow without bound,
// nor each commit try to delete all of it again.
func TestGarbageIsBoundedWithoutTheRightToDelete(t *testing.T) {
	inWorld(t, func(w *world) {
		var most atomic.Int64
		store := deleteCounter{w.bucket.Open(), &most}
		job := newJob(t, store, checkpoint.Options{Retention: lastOne.Retention, Logger: slog.New(slog.DiscardHandler)})
		task, _ := job.Task("orders/7")
		o := claim(w, task)
		for n := range 1100 {
			commit(w, o, with(n, 17<<10))
			synctest.Wait()
		}
		if most.Load() > 1001 {
			t.Errorf("after 1,100 commits one Delete names %d keys", most.Load())
		}
	})
}

type deleteCounter struct {
	backend.Store
	most *atomic.Int64
}

func (s deleteCounter) Delete(_ context.Context, keys ...string) error {
	s.most.Store(max(s.most.Load(), int64(len(keys))))
	return &backend.Error{Op: "delete", Store: "s", Err: backend.ErrPermission}
}

// A damaged retained checkpoint does not stop the clean-up of newer ones.
func TestDamagedSavepointDoesNotStopCleanUp(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		s := with(1, 20<<10)
		s.Savepoint = "old"
		commit(w, o, s)
		commit(w, o, with(1, 20<<10))
		if _, err := w.bucket.Open().Put(w.Context(), format.ManifestKey(dir, 2), []byte("rubbish")); err != nil {
			t.Fatal(err)
		}
		heir, _ := w.ownerWith(lastOne)
		for n := range 50 {
			commit(w, heir, with(n+2, 20<<10))
			synctest.Wait()
		}
		if n := len(w.objects(segments)); n > 3 {
			t.Errorf("%d segments for 2 checkpoints; %d clean-ups failed", n, heir.CleanupFailures())
		}
	})
}

// If its context ends, a save does not wait for its clean-up.
func TestSaveHonoursItsContextInCleanUp(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, _ := w.open(lastOne)
		if _, err := task.Save(w.Context(), with(1, 20<<10), checkpoint.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		job := newJob(t, hangingDelete{w.bucket.Open(), release}, lastOne)
		task, _ = job.Task("orders/7")
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { _, err := task.Save(ctx, with(2, 20<<10), checkpoint.SaveOptions{}); done <- err }()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("save: %v; it was made, and only the clean-up was cut short", err)
			}
		case <-time.After(time.Hour):
			t.Error("Save does not return although its context ended an hour ago and its commit is durable")
			close(release)
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// A save that its caller gives up deletes what it has sent, although its context has ended.
func TestSaveThatIsGivenUpLeavesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, cancel := context.WithCancel(w.Context())
		job := newJob(t, cancelAfterPut{w.bucket.Open(), cancel}, checkpoint.Options{Memory: 1 << 20})
		task, err := job.Task("orders/7")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := task.Save(ctx, with(1, 300<<10), checkpoint.SaveOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v; want that it was cancelled", err)
		}
		if left := w.objects(""); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// cancelAfterPut is a store whose user gives up when something was put into it.
type cancelAfterPut struct {
	backend.Store
	cancel func()
}

func (s cancelAfterPut) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	o, err := s.Store.Put(ctx, key, data)
	s.cancel()
	return o, err
}

// hangingDelete is a service that accepts the connection and never answers.
type hangingDelete struct {
	backend.Store
	release chan struct{}
}

func (s hangingDelete) Delete(ctx context.Context, keys ...string) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.release:
		return nil
	case <-time.After(24 * time.Hour):
		return errors.New("timeout")
	}
}

// A Commit that waits for another one returns when its context ends.
func TestCommitStopsWaitingWhenItsContextEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		r, wr := io.Pipe()
		first := make(chan error, 1)
		go func() {
			_, err := o.Commit(w.Context(), checkpoint.Snapshot{State: checkpoint.Stream("s", r)})
			first <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		second := make(chan error, 1)
		go func() { _, err := o.Commit(ctx, at(2)); second <- err }()
		if err := <-second; !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("the second: %v, want DeadlineExceeded, and not ErrUnknown", err)
		}
		if err := wr.Close(); err != nil {
			t.Error(err)
		}
		if err := <-first; err != nil {
			t.Errorf("the first: %v", err)
		}
	})
}
