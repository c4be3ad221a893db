package checkpoint_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	_ "github.com/holdfast-io/holdfast/local"
)

// held is a store whose requests wait while its gate is closed. A request after its
// Close is an error of the caller.
type held struct {
	backend.Store
	t tester

	mu     sync.Mutex
	gate   chan struct{} // nil if it is open
	verb   string        // the method that waits; "" means every method
	closed bool
}

func (s *held) shut(verb string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate, s.verb = make(chan struct{}), verb
}

func (s *held) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.gate)
	s.gate = nil
}

func (s *held) wait(verb string) {
	s.mu.Lock()
	gate := s.gate
	if s.verb != "" && s.verb != verb {
		gate = nil
	}
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.t.Errorf("%s while the store is closed, or after", verb)
	}
}

func (s *held) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	s.wait("create")
	return s.Store.Create(ctx, key, data)
}

func (s *held) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	s.wait("put")
	return s.Store.Put(ctx, key, data)
}

func (s *held) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	s.wait("get")
	return s.Store.Get(ctx, key, offset, p)
}

func (s *held) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		s.wait("list")
		s.Store.List(ctx, prefix, after)(yield)
	}
}

func (s *held) Delete(ctx context.Context, keys ...string) error {
	s.wait("delete")
	return s.Store.Delete(ctx, keys...)
}

func (s *held) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.Store.Close()
}

// heldJob returns a job on a held store, its task, and an owner of the task that has
// committed twice.
func (w *world) heldJob() (*held, *checkpoint.Job, *checkpoint.Task, *checkpoint.Owner) {
	w.Helper()
	store := &held{Store: w.bucket.Open(), t: w}
	job := newJob(w, store, checkpoint.Options{Memory: 1 << 20})
	task, err := job.Task("orders/7")
	if err != nil {
		w.Fatal(err)
	}
	o := claim(w, task)
	commit(w, o, with(1, 200<<10))
	commit(w, o, with(2, 200<<10))
	synctest.Wait() // for the clean-up
	return store, job, task, o
}

// in runs f in the background, and returns a channel that receives its error.
func in(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

func pending(done <-chan error) bool {
	synctest.Wait()
	return len(done) == 0
}

func wantJobClosed(t tester, what string, err error) {
	t.Helper()
	if !errors.Is(err, fs.ErrClosed) || err.Error() != "the job is closed" {
		t.Errorf("%s: %v, want that the job is closed", what, err)
	}
}

// Close waits for calls that write to the store or to a directory, and these succeed.
func TestJobCloseWaits(t *testing.T) {
	for name, call := range map[string]func(*world, *checkpoint.Task, *checkpoint.Owner, *checkpoint.Checkpoint) error{
		"commit": func(w *world, _ *checkpoint.Task, o *checkpoint.Owner, _ *checkpoint.Checkpoint) error {
			_, err := o.Commit(w.Context(), with(3, 200<<10))
			return err
		},
		"release": func(w *world, _ *checkpoint.Task, o *checkpoint.Owner, _ *checkpoint.Checkpoint) error {
			return o.Release(w.Context())
		},
		"claim": func(w *world, task *checkpoint.Task, _ *checkpoint.Owner, _ *checkpoint.Checkpoint) error {
			_, err := task.Claim(w.Context(), checkpoint.ClaimOptions{})
			return err
		},
		"claim of an older one": func(w *world, task *checkpoint.Task, _ *checkpoint.Owner, _ *checkpoint.Checkpoint) error {
			_, err := task.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(2)})
			return err
		},
		"rollback": func(w *world, task *checkpoint.Task, _ *checkpoint.Owner, _ *checkpoint.Checkpoint) error {
			_, err := task.Rollback(w.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{Fence: true})
			return err
		},
		"save": func(w *world, task *checkpoint.Task, _ *checkpoint.Owner, _ *checkpoint.Checkpoint) error {
			_, err := task.Save(w.Context(), with(3, 200<<10), checkpoint.SaveOptions{Fence: true})
			return err
		},
		"prune": func(w *world, task *checkpoint.Task, _ *checkpoint.Owner, _ *checkpoint.Checkpoint) error {
			_, err := task.Prune(w.Context(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{})
			return err
		},
		"collect": func(w *world, task *checkpoint.Task, _ *checkpoint.Owner, _ *checkpoint.Checkpoint) error {
			_, err := task.Collect(w.Context(), checkpoint.CollectOptions{})
			return err
		},
		"restore": func(w *world, _ *checkpoint.Task, _ *checkpoint.Owner, c *checkpoint.Checkpoint) error {
			return c.Restore(w.Context(), filepath.Join(tempDir(w), "state"), checkpoint.RestoreOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				store, job, task, o := w.heldJob()
				c, err := task.Latest(w.Context())
				if err != nil {
					t.Fatal(err)
				}
				store.shut("")
				called := in(func() error { return call(w, task, o, c) })
				synctest.Wait()
				closed := in(func() error { return job.Close(context.Background()) })
				if !pending(closed) || !pending(called) {
					t.Fatal("one of them did not wait")
				}
				_, err = task.Claim(w.Context(), checkpoint.ClaimOptions{})
				wantJobClosed(t, "a claim meanwhile", err)
				_, err = task.Latest(w.Context())
				wantJobClosed(t, "a read meanwhile", err)
				store.open()
				if err := <-called; err != nil {
					t.Errorf("it failed: %v", err)
				}
				if err := <-closed; err != nil {
					t.Errorf("close: %v", err)
				}
				w.wantReadable()
			})
		})
	}
}

// A Resume locks its owner, and Close waits for it too.
func TestJobCloseWaitsForResume(t *testing.T) {
	inWorld(t, func(w *world) {
		store, job, task, _ := w.heldJob()
		o := claim(w, task)
		target := filepath.Join(tempDir(w), "state")
		store.shut("get")
		resumed := in(func() error { _, err := o.Resume(w.Context(), target); return err })
		synctest.Wait()
		committed := in(func() error { _, err := o.Commit(w.Context(), at(3)); return err })
		synctest.Wait()
		closed := in(func() error { return job.Close(context.Background()) })
		if !pending(closed) || !pending(resumed) || !pending(committed) {
			t.Fatal("one of them did not wait")
		}
		store.open()
		if err := errors.Join(<-resumed, <-committed, <-closed); err != nil {
			t.Error(err)
		}
		w.wantHistory("3 2 1")
	})
}

// If the context of Close ends first, the call goes on, and another Close waits for
// it.
func TestJobCloseGivesUp(t *testing.T) {
	inWorld(t, func(w *world) {
		store, job, task, o := w.heldJob()
		store.shut("")
		committed := in(func() error { _, err := o.Commit(w.Context(), with(3, 200<<10)); return err })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if err := job.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "calls are under way (1)") {
			t.Errorf("%v, want DeadlineExceeded, and that a call is under way", err)
		}
		_, err := task.Latest(w.Context())
		wantJobClosed(t, "a read meanwhile", err)
		closed := in(func() error { return job.Close(w.Context()) })
		if !pending(closed) || !pending(committed) {
			t.Fatal("one of them did not wait")
		}
		store.open()
		if err := errors.Join(<-committed, <-closed); err != nil {
			t.Error(err)
		}
		w.wantHistory("3 2 1")
	})
}

// A clean-up that takes longer than the context of Close is ended early.
func TestJobCloseCutsACleanUpShort(t *testing.T) {
	inWorld(t, func(w *world) {
		release := make(chan struct{})
		defer close(release)
		job := newJob(t, hangingDelete{w.bucket.Open(), release}, lastOne)
		o, err := claimIn(w.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			commit(w, o, with(n, 200<<10))
		}
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if err := job.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "clean-up was cut short") {
			t.Errorf("%v, want that the clean-up was cut short", err)
		}
		if err := job.Close(w.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Close also waits for what commits do in the background.
func TestJobCloseWaitsForCleanUp(t *testing.T) {
	inWorld(t, func(w *world) {
		store := &held{Store: w.bucket.Open(), t: w}
		job := newJob(t, store, lastOne)
		task, err := job.Task("orders/7")
		if err != nil {
			t.Fatal(err)
		}
		o := claim(w, task)
		commit(w, o, with(1, 200<<10))
		synctest.Wait()
		store.shut("delete")
		commit(w, o, with(2, 200<<10))
		closed := in(func() error { return job.Close(context.Background()) })
		if !pending(closed) {
			t.Fatal("it did not wait")
		}
		store.open()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if n := o.CleanupFailures(); n > 0 {
			t.Errorf("%d clean-ups failed", n)
		}
		w.wantHistory("2")
	})
}

// A call that only reads ends before its next request. A request in progress is
// completed.
func TestJobCloseEndsReads(t *testing.T) {
	inWorld(t, func(w *world) {
		store, job, task, _ := w.heldJob()
		store.shut("")
		read := in(func() error { _, err := task.Latest(w.Context()); return err })
		synctest.Wait()
		closed := in(func() error { return job.Close(context.Background()) })
		if !pending(closed) || !pending(read) {
			t.Fatal("one of them did not wait")
		}
		store.open()
		wantJobClosed(t, "the read", <-read)
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// After Close, every call says that the job is closed.
func TestClosedJob(t *testing.T) {
	inWorld(t, func(w *world) {
		_, job, task, o := w.heldJob()
		c, err := task.Latest(w.Context())
		if err != nil {
			t.Fatal(err)
		}
		fsys, err := c.FS(w.Context())
		if err != nil {
			t.Fatal(err)
		}
		report, err := task.Verify(w.Context(), checkpoint.VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := job.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		ctx := w.Context()
		for name, call := range map[string]func() error{
			"owner's checkpoint": func() error { _, err := o.Checkpoint(ctx); return err },
			"resume":             func() error { _, err := o.Resume(ctx, tempDir(w)); return err },
			"commit":             func() error { _, err := o.Commit(ctx, at(3)); return err },
			"release":            func() error { return o.Release(ctx) },
			"claim":              func() error { _, err := task.Claim(ctx, checkpoint.ClaimOptions{}); return err },
			"claim at":           func() error { _, err := task.Claim(ctx, checkpoint.ClaimOptions{At: checkpoint.Seq(2)}); return err },
			"save":               func() error { _, err := task.Save(ctx, at(3), checkpoint.SaveOptions{}); return err },
			"rollback": func() error {
				_, err := task.Rollback(ctx, checkpoint.Seq(2), checkpoint.RollbackOptions{})
				return err
			},
			"status":      func() error { _, err := task.Status(ctx); return err },
			"newest":      func() error { _, err := task.Latest(ctx); return err },
			"at":          func() error { _, err := task.Get(ctx, checkpoint.Seq(2)); return err },
			"checkpoints": func() error { _, err := task.List(ctx); return err },
			"collect":     func() error { _, err := task.Collect(ctx, checkpoint.CollectOptions{}); return err },
			"prune": func() error {
				_, err := task.Prune(ctx, checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{})
				return err
			},
			"repair":  func() error { _, err := task.Repair(ctx, report, checkpoint.RepairOptions{}); return err },
			"restore": func() error { return c.Restore(ctx, tempDir(w), checkpoint.RestoreOptions{}) },
			"tasks": func() error {
				for _, err := range job.Tasks(ctx) {
					return err
				}
				return nil
			},
		} {
			wantJobClosed(t, name, call())
		}
		if _, err := fs.ReadFile(fsys, "s"); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("a file: %v, want fs.ErrClosed", err)
		}
		if err := o.Close(context.Background()); err != nil {
			t.Errorf("owner's close: %v", err)
		}
	})
}

// The loop over the tasks may close the job.
func TestJobClosedWhileItIsListed(t *testing.T) {
	_, job, _ := awkwardJob(t)
	var seen int
	var last error
	for _, err := range job.Tasks(t.Context()) {
		if last = err; err != nil {
			continue
		}
		seen++
		if err := job.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if seen != 1 || !errors.Is(last, fs.ErrClosed) {
		t.Errorf("%d tasks, and then %v", seen, last)
	}
}

// Several goroutines may close the job and its owners at once. All of them wait.
func TestJobClosedByMany(t *testing.T) {
	inWorld(t, func(w *world) {
		store, job, _, o := w.heldJob()
		store.shut("")
		committed := in(func() error { _, err := o.Commit(w.Context(), at(3)); return err })
		synctest.Wait()
		var closes []<-chan error
		closeOwner := func() error { return o.Close(context.Background()) }
		closeJob := func() error { return job.Close(w.Context()) }
		for _, f := range []func() error{closeJob, closeOwner, closeJob, closeOwner} {
			closes = append(closes, in(f))
		}
		for i, done := range closes {
			if !pending(done) {
				t.Errorf("close %d did not wait", i)
			}
		}
		store.open()
		if err := <-committed; err != nil {
			t.Error(err)
		}
		for _, done := range closes {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// If the context of a commit ends, the commit ends, and so does a Close that waits
// for it, even if the writer of its stream is silent.
func TestJobCloseWaitsNoLongerThanTheContext(t *testing.T) {
	inWorld(t, func(w *world) {
		_, job, _, o := w.heldJob()
		r, _ := io.Pipe()
		ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
		defer cancel()
		committed := in(func() error {
			_, err := o.Commit(ctx, checkpoint.Snapshot{State: checkpoint.Stream("s", r)})
			return err
		})
		synctest.Wait()
		closed := in(func() error { return job.Close(context.Background()) })
		select {
		case err := <-committed:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("commit: %v, want the end of its context", err)
			}
		case <-time.After(time.Hour):
			t.Error("Commit waits for a silent writer, an hour after its context ended")
			_ = r.Close()
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// The same with a store of files, which is closed too.
func TestJobOnDiskClosedDuringCommit(t *testing.T) {
	job, err := checkpoint.Open(t.Context(), "file://"+filepath.ToSlash(t.TempDir()), checkpoint.Options{Memory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	task, err := job.Task("orders/7")
	if err != nil {
		t.Fatal(err)
	}
	o := claim(t, task)
	r, w := io.Pipe()
	committed := in(func() error {
		_, err := o.Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.Stream("s", r)})
		return err
	})
	if _, err := w.Write(noise(300 << 10)); err != nil { // the commit has begun
		t.Fatal(err)
	}
	closed := in(func() error { return job.Close(context.Background()) })
	for !errors.Is(o.Release(ended(t)), fs.ErrClosed) { // until Close has begun
		if len(closed) > 0 {
			t.Fatal("it did not wait")
		}
	}
	if _, err := w.Write(noise(300 << 10)); err != nil {
		t.Errorf("the commit does not go on: %v", err)
	}
	if err := errors.Join(w.Close(), <-committed, <-closed); err != nil {
		t.Error(err)
	}
}

// ended returns a context that has ended.
func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
