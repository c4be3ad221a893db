package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

func TestClaimFencesEarlierOwner(t *testing.T) {
	inWorld(t, func(w *world) {
		old, _ := w.owner()
		commit(w, old, at(1))
		heir, _ := w.owner()
		if heir.Epoch() != old.Epoch()+1 {
			t.Errorf("epochs %d, then %d", old.Epoch(), heir.Epoch())
		}
		c, err := heir.Checkpoint(w.Context())
		if err != nil || c.Seq != 2 || c.Offsets["in"] != "1" || c.Time.IsZero() {
			t.Errorf("heir goes on from %+v, %v", c, err)
		}
		for range 2 { // also the second time
			if _, err := old.Commit(w.Context(), at(99)); !errors.Is(err, checkpoint.ErrFenced) {
				t.Errorf("old owner's commit: %v, want ErrFenced", err)
			}
		}
		commit(w, heir, at(2))
		w.wantHistory("2 1")
	})
}

func TestCommitWhoseOutcomeIsUnclear(t *testing.T) {
	perm := &backend.Error{Op: "create", Store: "s", Key: "k", Err: backend.ErrPermission}
	for _, c := range []struct {
		name    string
		faults  []faultstore.Fault
		first   error  // the result of the first commit
		between string // what happens before the second one
		second  error
		history string
	}{
		{name: "reply lost", history: "2 1",
			faults: []faultstore.Fault{{Kind: faultstore.LoseReply, Verb: "create", On: 1}}},
		{name: "never applied", history: "2 1",
			faults: []faultstore.Fault{{Kind: faultstore.FailBefore, Verb: "create", On: 1}}},
		{name: "reply lost, read-back fails for a while", history: "2 1",
			faults: []faultstore.Fault{
				{Kind: faultstore.LoseReply, Verb: "create", On: 1},
				{Kind: faultstore.FailBefore, Verb: "get", On: 1},
				{Kind: faultstore.FailBefore, Verb: "list", On: 1},
			}},
		{name: "reply lost, read-back refused", first: checkpoint.ErrUnknown, history: "2 1",
			faults: []faultstore.Fault{
				{Kind: faultstore.LoseReply, Verb: "create", On: 1},
				{Kind: faultstore.FailBefore, Verb: "get", On: 1, Err: perm},
			}},
		{name: "all attempts fail, none applied", first: checkpoint.ErrUnknown, history: "2 1",
			faults: []faultstore.Fault{{Kind: faultstore.FailBefore, Verb: "create"}}},
		{name: "all attempts fail, the first lands later", first: checkpoint.ErrUnknown, between: "land", history: "2 1",
			faults: []faultstore.Fault{{Kind: faultstore.Zombie, Verb: "create"}}},
		{name: "all attempts fail, then another claims", first: checkpoint.ErrUnknown, between: "claim",
			second: checkpoint.ErrFenced, history: "",
			faults: []faultstore.Fault{{Kind: faultstore.FailBefore, Verb: "create"}}},
		{name: "the first lands, then another claims", first: checkpoint.ErrUnknown, between: "land, claim",
			second: checkpoint.ErrFenced, history: "1",
			faults: []faultstore.Fault{{Kind: faultstore.Zombie, Verb: "create"}}},
		{name: "refused", first: backend.ErrPermission, history: "2",
			faults: []faultstore.Fault{{Kind: faultstore.FailBefore, Verb: "create", On: 1, Err: perm}}},
		{name: "refused after a lost reply", first: checkpoint.ErrUnknown, history: "2 1",
			faults: []faultstore.Fault{
				{Kind: faultstore.LoseReply, Verb: "create", On: 1},
				{Kind: faultstore.FailBefore, Verb: "create", On: 1, Err: perm},
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, store := w.owner(c.faults...)
				_, err := o.Commit(w.Context(), at(1))
				if !errors.Is(err, c.first) {
					t.Fatalf("first commit: %v, want %v", err, c.first)
				}
				if unfired := store.Unfired(); len(unfired) > 0 {
					t.Fatalf("did not fire: %v", unfired)
				}
				store.Heal()
				if strings.Contains(c.between, "land") {
					store.Land()
				}
				if strings.Contains(c.between, "claim") {
					w.owner()
				}
				_, err = o.Commit(w.Context(), at(2))
				if !errors.Is(err, c.second) {
					t.Fatalf("second commit: %v, want %v", err, c.second)
				}
				w.wantHistory(c.history)
			})
		})
	}
}

// The owner's reply is lost, and before it asks again another writer has gone on from
// its manifest. Its commit counts, and it is fenced afterwards.
func TestOwnCommitIsFoundUnderAnothersClaim(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1})
		done := make(chan error)
		go func() {
			_, err := o.Commit(w.Context(), at(1))
			done <- err
		}()
		synctest.Wait() // it waits before it tries again
		heir, _ := w.owner()
		if err := <-done; err != nil {
			t.Errorf("commit that had landed: %v", err)
		}
		if _, err := o.Commit(w.Context(), at(2)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("next commit: %v, want ErrFenced", err)
		}
		commit(w, heir, at(3))
		w.wantHistory("3 1")
	})
}

// The request is not applied, and before it is sent again another writer takes the
// number: nothing was committed.
func TestNumberTakenWhileWaiting(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", On: 1})
		done := make(chan error)
		go func() {
			_, err := o.Commit(w.Context(), at(1))
			done <- err
		}()
		synctest.Wait()
		w.owner()
		if err := <-done; !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("commit: %v, want ErrFenced", err)
		}
		w.wantHistory("")
	})
}

func TestContextEndsDuringCommit(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.owner(faultstore.Fault{Kind: faultstore.Zombie, Verb: "create"})
		ctx, cancel := context.WithTimeout(w.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := o.Commit(ctx, at(1))
		if !errors.Is(err, checkpoint.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("commit: %v, want ErrUnknown and DeadlineExceeded", err)
		}
		_, err = o.Commit(ctx, at(2))
		if !errors.Is(err, checkpoint.ErrUnsettled) || errors.Is(err, checkpoint.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("next commit with an ended context: %v, want ErrUnsettled and DeadlineExceeded, and not ErrUnknown", err)
		}
		store.Heal()
		store.Land()
		commit(w, o, at(3))
		w.wantHistory("3 1")
	})
}

func TestContextThatHasEndedCommitsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		_, err := o.Commit(ctx, at(1))
		if !errors.Is(err, context.Canceled) || errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("commit: %v, want Canceled, and not ErrUnknown", err)
		}
		w.wantHistory("")
	})
}

func TestFailedUploadLeavesTheBase(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.owner()
		commit(w, o, at(1))
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "put", On: 1, Err: backend.ErrNoSpace})
		s := at(2)
		s.State = checkpoint.Stream("s", bytes.NewReader(noise(100<<10)))
		if _, err := o.Commit(w.Context(), s); !errors.Is(err, backend.ErrNoSpace) {
			t.Errorf("commit: %v, want ErrNoSpace", err)
		}
		commit(w, o, at(3))
		w.wantHistory("3 1")
	})
}

// deleteOld does what a collector may do: it deletes all manifests that are older
// than the fence window, except the newest.
func (w *world) deleteOld() (deleted int) {
	store := w.bucket.Open()
	first := true
	for o, err := range store.List(w.Context(), "", "") {
		if err != nil {
			w.Fatal(err)
		}
		if !first && strings.Contains(o.Key, manifests) && time.Since(o.ModTime) > checkpoint.FenceWindow {
			if err := store.Delete(w.Context(), o.Key); err != nil {
				w.Fatal(err)
			}
			deleted++
		}
		first = false
	}
	return deleted
}

// The hole of create-if-absent: the number that a sleeping owner would use was used
// and deleted while it slept.
func TestSleeperIsFencedWhenItsNumberIsFreeAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		sleeper, _ := w.owner()
		commit(w, sleeper, at(1))
		heir, _ := w.owner() // takes the sleeper's next number
		commit(w, heir, at(2))
		time.Sleep(checkpoint.FenceWindow + time.Minute)
		commit(w, heir, at(3))
		if w.deleteOld() == 0 {
			t.Fatal("nothing was old enough")
		}
		if _, err := sleeper.Commit(w.Context(), at(99)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("sleeper's commit: %v, want ErrFenced", err)
		}
		task, _, _ := w.process()
		if c, err := task.Latest(w.Context()); err != nil || c.Offsets["in"] != "3" {
			t.Errorf("newest is %+v, %v", c, err)
		}
	})
}

// The sleeper sleeps once more while it looks for its checkpoint. What it reads then
// is a late manifest as well, by a writer that had read that another checkpoint of
// that number is retained.
func TestSleeperIsFencedWhateverItReads(t *testing.T) {
	inWorld(t, func(w *world) {
		var looked func()
		sleeper := claim(w, w.hookedTask(lastOne, func(verb, key string) {
			if f := looked; f != nil && verb == "get" && strings.Contains(key, manifests) {
				looked = nil
				f()
			}
		})) // 1
		commit(w, sleeper, at(2))
		synctest.Wait()

		two := checkpoint.Options{Retention: checkpoint.Retention{Last: 2}}
		other, _, _ := w.open(two)
		if _, err := other.Save(w.Context(), at(3), checkpoint.SaveOptions{Fence: true}); err != nil {
			t.Fatal(err)
		}
		heir, _ := w.ownerWith(two) // 4
		commit(w, heir, at(5))
		late := *w.manifest(5) // a save after number 5 is about to send this
		late.Seq, late.Epoch, late.Writer, late.Released = 6, late.Epoch+1, format.WriterID{0xee}, true
		saved := *late.Checkpoint
		saved.Seq, saved.Epoch, late.Checkpoint = late.Seq, late.Epoch, &saved
		pass := func(n int) {
			time.Sleep(2 * checkpoint.FenceWindow)
			commit(w, heir, at(n))
			synctest.Wait()
		}
		pass(6)
		if w.exists(format.ManifestKey(dir, 3)) {
			t.Fatal("manifest 3 has not been deleted")
		}
		looked = func() {
			pass(7)
			pass(8)
			w.put(&late)
		}
		if c, err := sleeper.Commit(w.Context(), at(99)); err == nil {
			t.Errorf("the sleeper's checkpoint %d is acknowledged", c.Seq)
		}
		if _, err := sleeper.Commit(w.Context(), at(99)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("its next commit: %v, want ErrFenced", err)
		}
		w.wantHistory("8 7")
	})
}

// An owner that was away, and was not fenced, goes on after one more request.
func TestLongPauseCostsOneRequest(t *testing.T) {
	inWorld(t, func(w *world) {
		task, job, _ := w.process()
		o := claim(w, task)
		commit(w, o, at(0))
		synctest.Wait() // for the owner's collection
		for _, c := range []struct {
			pause time.Duration
			lists int64
		}{
			{0, 0}, {checkpoint.FenceWindow / 2, 0}, {checkpoint.FenceWindow/2 + time.Second, 1}, {0, 0},
		} {
			time.Sleep(c.pause)
			before := job.Stats()
			commit(w, o, at(1))
			after := job.Stats()
			if n := after.List.Calls - before.List.Calls; n != c.lists {
				t.Errorf("commit after %v took %d listings, want %d", c.pause, n, c.lists)
			}
			if n := after.Create.Calls - before.Create.Calls; n != 1 {
				t.Errorf("commit after %v took %d creates, want 1", c.pause, n)
			}
			if after.Get != before.Get {
				t.Errorf("commit after %v read something", c.pause)
			}
		}
	})
}

func TestRequests(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, store := w.process()
		count := func(what string, want int, f func() error) {
			t.Helper()
			before := store.Calls()
			if err := f(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			synctest.Wait()
			if n := store.Calls() - before; n != want {
				t.Errorf("%s took %d requests, want %d", what, n, want)
			}
		}
		var o *checkpoint.Owner
		take := func() (err error) { o, err = task.Claim(w.Context(), checkpoint.ClaimOptions{}); return err }
		count("first claim", 5, take) // list, list what lost manifests may have left, create, create again, list
		// An owner collects once: two lists of manifests, one of segments, and a read
		// of the newest manifest.
		count("first commit of offsets", 5, func() error { _, err := o.Commit(w.Context(), at(0)); return err })
		count("commit of offsets", 1, func() error { _, err := o.Commit(w.Context(), at(1)); return err })
		count("commit of 100 KiB", 2, func() error {
			s := at(2)
			s.State = checkpoint.Stream("s", bytes.NewReader(noise(100<<10)))
			_, err := o.Commit(w.Context(), s)
			return err
		})
		count("claim", 5, take) // list, get, create, create again, list
		count("newest", 2, func() error { _, err := task.Latest(w.Context()); return err })
		count("one-off save", 4, func() error { _, err := task.Save(w.Context(), at(3), checkpoint.SaveOptions{Fence: true}); return err }) // list, get, create, list
	})
}

// A careless store treats every Create as a Put.
type carelessStore struct{ backend.Store }

func (s carelessStore) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	return s.Put(ctx, key, data)
}

func TestStoreThatIgnoresConditionsIsRefused(t *testing.T) {
	for name, use := range map[string]func(context.Context, *checkpoint.Task) error{
		"claim": func(ctx context.Context, t *checkpoint.Task) error {
			_, err := t.Claim(ctx, checkpoint.ClaimOptions{})
			return err
		},
		"save": func(ctx context.Context, t *checkpoint.Task) error {
			_, err := t.Save(ctx, at(1), checkpoint.SaveOptions{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			job := newJob(t, carelessStore{mem.NewBucket(time.Now).Open()}, checkpoint.Options{})
			task, _ := job.Task("t")
			for range 2 { // the first refusal leaves nothing that looks like a claim
				if err := use(t.Context(), task); !errors.Is(err, backend.ErrUnsupported) {
					t.Fatalf("err = %v, want ErrUnsupported", err)
				}
			}
			if s, err := task.Status(t.Context()); err != nil || s.Manifest != 0 {
				t.Errorf("left behind: %+v, %v", s, err)
			}
		})
	}
}

// A job can be copied to another store, so each claim tests the store again.
func TestCopyInAStoreThatIgnoresConditionsIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		for n := range 3 {
			commit(w, o, at(n))
		}
		job := newJob(t, carelessStore{w.bucket.Open()}, checkpoint.Options{})
		if _, err := claimIn(w.Context(), job); !errors.Is(err, backend.ErrUnsupported) {
			t.Errorf("claim: %v, want ErrUnsupported", err)
		}
		w.wantHistory("2 1 0")
	})
}

// A job must not start from nothing because its store could not be read.
func TestUnreadableIsNotEmpty(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, at(1))
		for _, verb := range []string{"list", "get"} {
			task, _, _ := w.process(faultstore.Fault{Kind: faultstore.FailBefore, Verb: verb, Err: backend.ErrPermission})
			if _, err := task.Latest(w.Context()); errors.Is(err, checkpoint.ErrNoCheckpoint) || !errors.Is(err, backend.ErrPermission) {
				t.Errorf("newest without the right to %s: %v, want ErrPermission", verb, err)
			}
			if _, err := task.Claim(w.Context(), checkpoint.ClaimOptions{}); !errors.Is(err, backend.ErrPermission) {
				t.Errorf("claim without the right to %s: %v, want ErrPermission", verb, err)
			}
		}
	})
}

func TestManyClaimAtOnce(t *testing.T) {
	bucket := mem.NewBucket(time.Now)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var owners []*checkpoint.Owner
	for range 8 {
		wg.Go(func() {
			o := claim(t, openTask(t, bucket, checkpoint.Options{Backoff: backend.Backoff{First: time.Millisecond}}))
			mu.Lock()
			owners = append(owners, o)
			mu.Unlock()
		})
	}
	wg.Wait()
	epochs := map[uint64]bool{}
	winners := 0
	for _, o := range owners {
		epochs[o.Epoch()] = true
		switch _, err := o.Commit(t.Context(), at(1)); {
		case err == nil:
			winners++
		case !errors.Is(err, checkpoint.ErrFenced):
			t.Error(err)
		}
	}
	if winners != 1 || len(epochs) != len(owners) {
		t.Errorf("%d winners; %d epochs for %d claims", winners, len(epochs), len(owners))
	}
}

func TestSavesAtOnce(t *testing.T) {
	bucket := mem.NewBucket(time.Now)
	var wg sync.WaitGroup
	var mu sync.Mutex
	saved := 0
	for n := range 8 {
		task := openTask(t, bucket, checkpoint.Options{Retention: checkpoint.Retention{Last: checkpoint.KeepAll}})
		wg.Go(func() {
			_, err := task.Save(t.Context(), with(n, 50<<10), checkpoint.SaveOptions{})
			if err == nil {
				mu.Lock()
				saved++
				mu.Unlock()
			} else if !errors.Is(err, checkpoint.ErrConflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	task := openTask(t, bucket, checkpoint.Options{})
	list, err := task.List(t.Context())
	if err != nil || len(list) != saved || saved == 0 {
		t.Errorf("%d saves succeeded; history has %d, %v", saved, len(list), err)
	}
	// The losers deleted their segments.
	segments := 0
	for o, err := range bucket.Open().List(t.Context(), "", "") {
		if err == nil && strings.Contains(o.Key, "/segments/") {
			segments++
		}
	}
	if segments != saved {
		t.Errorf("%d segments for %d checkpoints", segments, saved)
	}
}

func TestRelease(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, at(1))
		task, _, _ := w.process()
		if s, err := task.Status(w.Context()); err != nil || !s.Claimed {
			t.Errorf("status %+v, %v; want it claimed", s, err)
		}
		if err := o.Release(w.Context()); err != nil {
			t.Fatal(err)
		}
		if s, err := task.Status(w.Context()); err != nil || s.Claimed {
			t.Errorf("status %+v, %v; want it released", s, err)
		}
		if _, err := o.Commit(w.Context(), at(2)); err == nil {
			t.Error("a commit after Release succeeded")
		}
		heir, _ := w.owner()
		commit(w, heir, at(3))
		w.wantHistory("3 1")
	})
}
