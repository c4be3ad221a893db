package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// If the context ends during a request, it is unknown what becomes of the request.
func TestCommitWhoseContextEndsInTheRequest(t *testing.T) {
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		for _, kind := range []faultstore.Kind{faultstore.LoseReply, faultstore.Zombie} {
			t.Run(fmt.Sprint(ended, ", ", kind), func(t *testing.T) {
				inWorld(t, func(w *world) {
					o, store := w.owner(faultstore.Fault{Kind: kind, Verb: "create", On: 1, Err: ended})
					if _, err := o.Commit(w.Context(), at(1)); !errors.Is(err, checkpoint.ErrUnknown) || !errors.Is(err, ended) {
						t.Errorf("commit: %v, want ErrUnknown, and %v", err, ended)
					}
					store.Land()
					commit(w, o, at(2))
					w.wantHistory("2 1")
				})
			})
		}
	}
}

// A commit is in doubt. It was made, another writer went on from it, it was retired
// and deleted, and then another manifest came late under its number. The segments
// that it uploaded are in use.
func TestCommitThatWasRetiredBeforeItWasSettled(t *testing.T) {
	inWorld(t, func(w *world) {
		state := func() checkpoint.Snapshot { return with(1, 100<<10) }
		o, store := w.ownerWith(lastOne) // 1
		sleeper, _, _ := w.open(lastOne, faultstore.Fault{Kind: faultstore.Delay, Verb: "create", On: 1, For: 4 * time.Hour})
		claimed := make(chan *checkpoint.Owner)
		go func() { claimed <- claim(w, sleeper) }() // as number 2
		synctest.Wait()

		store.Arm(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1}, faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create"})
		if _, err := o.Commit(w.Context(), state()); !errors.Is(err, checkpoint.ErrUnknown) { // 2
			t.Fatalf("commit: %v, want ErrUnknown", err)
		}
		store.Heal()
		heir, _ := w.ownerWith(lastOne) // 3
		commit(w, heir, state())
		time.Sleep(2 * checkpoint.FenceWindow)
		commit(w, heir, state())
		synctest.Wait()
		if w.exists(format.ManifestKey(dir, 2)) {
			t.Fatal("manifest 2 has not been deleted")
		}
		<-claimed
		if m := w.manifest(2); m.Kind != format.KindClaim {
			t.Fatalf("number 2 is %+v", m)
		}

		_, err := o.Commit(w.Context(), state())
		if !errors.Is(err, checkpoint.ErrUnknown) || !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("the next commit: %v, want ErrUnknown and ErrFenced", err)
		}
		synctest.Wait()
		w.wantHistory("1")
		w.wantReadable()
	})
}

// An owner that was fenced sends no more requests, even if its number becomes free
// again.
func TestFencedIsForGood(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.ownerWith(lastOne)
		commit(w, o, at(1)) // 2
		heir, _ := w.ownerWith(lastOne)
		if _, err := o.Commit(w.Context(), at(99)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Fatalf("commit: %v, want ErrFenced", err)
		}
		commit(w, heir, at(2))
		time.Sleep(2 * checkpoint.FenceWindow)
		commit(w, heir, at(3))
		synctest.Wait()
		if w.exists(format.ManifestKey(dir, 3)) {
			t.Fatal("manifest 3 has not been deleted")
		}
		before := store.Calls()
		_, err := o.Commit(w.Context(), at(99))
		if !errors.Is(err, checkpoint.ErrFenced) || errors.Is(err, checkpoint.ErrUnknown) || store.Calls() != before {
			t.Errorf("commit: %v, after %d requests; want ErrFenced after none", err, store.Calls()-before)
		}
	})
}

// After a failed commit, the base contains nothing that was not stored: neither new
// chunks nor repacked ones.
func TestFailedCommitLeavesTheBase(t *testing.T) {
	state := func(n int) fstest.MapFS {
		return fstest.MapFS{"changes": {Data: noise(60<<10 + n)}, "keep.sst": {Data: noise(20 << 10)}}
	}
	snapshot := func(n int) checkpoint.Snapshot {
		s := at(n)
		s.State = checkpoint.FS(state(n)).Immutable("*.sst") // most of its segment is dead, so it is repacked
		return s
	}
	for name, fault := range map[string]faultstore.Fault{
		"an upload":    {Kind: faultstore.FailBefore, Verb: "put", On: 1, Err: backend.ErrNoSpace},
		"the manifest": {Kind: faultstore.FailBefore, Verb: "create", On: 1, Err: backend.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, store := w.ownerWith(lastOne)
				commit(w, o, snapshot(1))
				store.Arm(fault)
				if _, err := o.Commit(w.Context(), snapshot(2)); !errors.Is(err, fault.Err) {
					t.Fatalf("commit: %v, want %v", err, fault.Err)
				}
				synctest.Wait()
				made := commit(w, o, snapshot(2))
				synctest.Wait()
				fsys, err := made.FS(w.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := sameTree(fsys, state(2)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// What a failed commit uploaded is deleted in the background, so the next commit must
// use other keys. The segments that a rollback uploaded may be read while the next
// commit is made.
func TestNoKeyIsWrittenTwice(t *testing.T) {
	use := func(w *world, opts checkpoint.Options, faults ...faultstore.Fault) (*checkpoint.Task, *keysPut) {
		store := &keysPut{Store: faultstore.Wrap(w, w.bucket.Open(), faults...)}
		task, err := newJob(t, store, opts).Task("orders/7")
		if err != nil {
			w.Fatal(err)
		}
		return task, store
	}
	t.Run("after a failure", func(t *testing.T) {
		inWorld(t, func(w *world) {
			task, store := use(w, checkpoint.Options{Memory: 1 << 20},
				faultstore.Fault{Kind: faultstore.FailBefore, Verb: "put", On: 2, Err: backend.ErrNoSpace})
			o := claim(w, task)
			if _, err := o.Commit(w.Context(), with(1, 300<<10)); !errors.Is(err, backend.ErrNoSpace) {
				t.Fatalf("commit: %v, want ErrNoSpace", err)
			}
			failed := len(store.keys)
			commit(w, o, with(2, 300<<10))
			synctest.Wait()
			w.wantReadable()
			store.requireNew(w, failed+1)
		})
	})
	t.Run("after a rollback", func(t *testing.T) {
		inWorld(t, func(w *world) {
			all := checkpoint.Options{Retention: checkpoint.Retention{Last: checkpoint.KeepAll}}
			task, before := use(w, all)
			o := claim(w, task)
			untilSent := func() (commits int) { // until one sends a piece of the list
				for sent := len(before.keys); len(before.keys) == sent; commits++ {
					commit(w, o, at(commits))
				}
				return commits
			}
			untilSent()
			for range untilSent() - 1 {
				commit(w, o, at(1))
			}
			again, store := use(w, all)
			heir, err := again.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(107)})
			if err != nil || len(store.keys) == 0 {
				t.Fatalf("the rollback has sent %d segments, %v", len(store.keys), err)
			}
			w.Cleanup(func() { _ = heir.Close(context.Background()) })
			sent := len(store.keys)
			commit(w, heir, with(1, 100<<10))
			commit(w, heir, with(2, 100<<10))
			store.requireNew(w, sent+2)
		})
	})
}

// requireNew checks that there were at least some Puts, and that all their keys
// differ.
func (s *keysPut) requireNew(t tester, atLeast int) {
	t.Helper()
	if n := len(slices.Compact(slices.Sorted(slices.Values(s.keys)))); n != len(s.keys) || n < atLeast {
		t.Errorf("there are %d keys: %q; want %d at least, each once", n, s.keys, atLeast)
	}
}

// keysPut records the keys of all Puts.
type keysPut struct {
	backend.Store
	mu   sync.Mutex
	keys []string
}

func (s *keysPut) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	s.mu.Lock()
	s.keys = append(s.keys, key)
	s.mu.Unlock()
	return s.Store.Put(ctx, key, data)
}

func TestReleaseKeepsTheHistory(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		for n := range 3 {
			commit(w, o, with(n, 20<<10))
		}
		if err := o.Release(w.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.wantHistory("2 1 0")
		w.wantReadable()
	})
}

// A checkpoint keeps the time of its commit, however often the task is claimed.
func TestCheckpointKeepsItsTime(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		c := commit(w, o, at(1))
		for range 2 {
			time.Sleep(time.Minute)
			heir, _ := w.owner()
			if got, err := heir.Checkpoint(w.Context()); err != nil || !got.Time.Equal(c.Time) {
				t.Errorf("%+v, %v; want the time %v", got, err, c.Time)
			}
		}
	})
}

// While a save is in doubt, its segments are not deleted.
func TestSegmentsOfASaveInDoubtAreKept(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, store := w.open(lastOne, faultstore.Fault{Kind: faultstore.Zombie, Verb: "create"})
		if _, err := task.Save(w.Context(), with(1, 100<<10), checkpoint.SaveOptions{}); !errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("save: %v, want ErrUnknown", err)
		}
		store.Heal()
		store.Land()
		w.wantHistory("1")
		w.wantReadable()
	})
}

// The bytes of a segment do not change until the store has taken them, however long
// that takes.
func TestSegmentsAreSentAsTheyWere(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, store := w.open(checkpoint.Options{Memory: 1 << 20})
		o := claim(w, task)
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "put", For: time.Minute})
		commit(w, o, with(1, 600<<10))
		w.wantReadable()
	})
}

// A state of many chunks may be small, if all chunks are equal.
func TestSmallStateOfManyChunks(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		state := fstest.MapFS{"zeros": {Data: make([]byte, 2<<20)}}
		c := commit(w, o, checkpoint.Snapshot{State: checkpoint.FS(state)})
		if len(w.manifest(c.Seq).Checkpoint.Content.Inline) == 0 {
			t.Error("it is not inline")
		}
		task, _, _ := w.process() // a process that does not have it in memory
		c, err := task.Latest(w.Context())
		if err != nil {
			t.Fatal(err)
		}
		fsys, err := c.FS(w.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := sameTree(fsys, state); err != nil {
			t.Error(err)
		}
	})
}

// The first writer may have died before it checked that the store refuses to create
// existing keys. So the second save checks that too.
func TestSecondSaveInAStoreThatIgnoresConditionsIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		first, _, _ := w.process(faultstore.Fault{Kind: faultstore.CrashAfter, Verb: "create", On: 1})
		if _, err := first.Save(w.Context(), at(1), checkpoint.SaveOptions{}); !errors.Is(err, faultstore.ErrCrashed) {
			t.Fatalf("the first save: %v, want ErrCrashed", err)
		}
		job := newJob(t, carelessStore{w.bucket.Open()}, checkpoint.Options{})
		task, err := job.Task("orders/7")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := task.Save(w.Context(), at(2), checkpoint.SaveOptions{}); !errors.Is(err, backend.ErrUnsupported) {
			t.Errorf("the second save: %v, want ErrUnsupported", err)
		}
		w.wantHistory("1")
	})
}

// A file that is read again, and is what it was, stores nothing, however little of its data lies beside
// its table in one segment.
func TestNothingNewAtAnySize(t *testing.T) {
	data := noise(400 << 10)
	for size := 256 << 10; size < 330<<10; size += 4 << 10 {
		o := claim(t, newTask(t))
		state := func() checkpoint.Snapshot {
			return checkpoint.Snapshot{State: checkpoint.FS(fstest.MapFS{"f": {Data: data[:size], Mode: 0o644}})}
		}
		commit(t, o, state())
		for n := range 3 {
			if c := commit(t, o, state()); c.NewBytes > 0 {
				t.Errorf("%d bytes: save %d stores %d", size, n+2, c.NewBytes)
			}
		}
	}
}
