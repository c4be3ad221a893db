package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

var lastOne = checkpoint.Options{Memory: 4 << 20, Retention: checkpoint.Retention{Last: 1}}

// wantReadable reads all of every checkpoint.
func (w *world) wantReadable() {
	w.Helper()
	task, _, _ := w.process()
	list, err := task.List(w.Context())
	if err != nil && !errors.Is(err, checkpoint.ErrNoCheckpoint) {
		w.Fatal(err)
	}
	for _, c := range list {
		fsys, err := c.FS(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		data, err := fs.ReadFile(fsys, "s")
		if c.Bytes > 0 && (err != nil || int64(len(data)) != c.Bytes || !strings.HasPrefix(string(data), fmt.Sprintf("%07s,", c.Offsets["in"]))) {
			w.Errorf("checkpoint %d of offset %s: %.20q, %v", c.Seq, c.Offsets["in"], data, err)
		}
	}
}

func TestSegmentsOfDroppedCheckpointsAreDeleted(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.ownerWith(checkpoint.Options{Memory: 4 << 20, Retention: checkpoint.Retention{Last: 2}})
		for n := range 5 {
			before := store.Calls()
			commit(w, o, with(n, 550<<10)) // three segments
			synctest.Wait()
			w.wantObjects(segments, 3*min(n+1, 2))
			w.wantReadable()
			// A commit sends three segments and a manifest, and from the third commit
			// on one deletion: the owner need not read what it has made itself. After
			// its first commit it collects, which takes two lists of manifests, one
			// of segments, and a read of the newest manifest.
			want := 4 + min(n/2, 1)
			if n == 0 {
				want += 4
			}
			if calls := store.Calls() - before; calls != want {
				t.Errorf("commit %d took %d requests, want %d", n, calls, want)
			}
		}
	})
}

// Only the store's clock decides what is old.
func TestManifestsAreDeletedWhenTheyAreOld(t *testing.T) {
	for name, skew := range map[string]time.Duration{"right": 0, "behind": -48 * time.Hour, "ahead": 48 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.bucket = mem.NewBucket(func() time.Time { return time.Now().Add(skew) })
				o, _ := w.ownerWith(lastOne)
				for n := range 4 {
					commit(w, o, at(n))
				}
				time.Sleep(checkpoint.FenceWindow)
				commit(w, o, at(4))
				synctest.Wait()
				w.wantObjects(manifests, 6) // the claim and five commits
				time.Sleep(time.Second)
				commit(w, o, at(5))
				synctest.Wait()
				w.wantObjects(manifests, 2) // the claim and four commits are old and not needed
				w.wantHistory("5")
				time.Sleep(2 * checkpoint.FenceWindow)
				commit(w, o, at(6))
				synctest.Wait()
				w.wantObjects(manifests, 1)
				time.Sleep(2 * checkpoint.FenceWindow)
				synctest.Wait()
				w.wantObjects(manifests, 1)
				w.wantHistory("6")
			})
		})
	}
}

// A manifest that is dropped late is deleted when it is old, though others that were dropped before
// it are young.
func TestOldManifestBehindAYoungOne(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		s := at(0)
		s.Savepoint = "first"
		commit(w, o, s)
		time.Sleep(2 * checkpoint.FenceWindow)
		for n := range 2 {
			commit(w, o, at(n+1))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		w.wantObjects(manifests, 3)
		task, _, _ := w.process()
		mustDo(t, second(task.RemoveSavepoint(w.Context(), "first")))
		commit(w, o, at(3))
		synctest.Wait()
		w.wantObjects(manifests, 4) // the amendment, and three commits: without the first
		w.wantHistory("3")
	})
}

// A manifest that is needed is kept, however old it is.
func TestRetainedManifestsAreKept(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		s := with(1, 20<<10)
		s.Savepoint = "first"
		commit(w, o, s)
		for n := range 5 {
			time.Sleep(2 * checkpoint.FenceWindow)
			commit(w, o, with(n+2, 20<<10))
		}
		synctest.Wait()
		w.wantObjects(manifests, 2)
		w.wantObjects(segments, 2)
		w.wantHistory("6 1")
		w.wantReadable()
	})
}

func TestFailedDeletionIsDoneAfterTheNextCommit(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.ownerWith(lastOne)
		commit(w, o, with(1, 20<<10))
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "delete"})
		commit(w, o, with(2, 20<<10))
		time.Sleep(time.Hour) // longer than all attempts take
		w.wantObjects(segments, 2)
		if n := o.CleanupFailures(); n != 1 {
			t.Errorf("%d clean-ups have failed, want 1", n)
		}
		store.Heal()
		commit(w, o, with(3, 20<<10))
		synctest.Wait()
		w.wantObjects(segments, 1)
		if n := o.CleanupFailures(); n != 1 {
			t.Errorf("%d clean-ups have failed, want 1", n)
		}
		w.wantReadable()
	})
}

// If a clean-up cannot find out what is needed, it deletes nothing, and runs again
// after the next commit.
func TestCleanUpThatCannotReadIsDoneAfterTheNextCommit(t *testing.T) {
	for _, c := range []struct {
		name     string
		key      string
		failures int64
		left     int // number of segments left
	}{
		// The collection after an owner's first commit reads what is kept.
		{"what was dropped", format.ManifestKey(dir, 2), 1, 2},
		{"what was kept", format.ManifestKey(dir, 3), 2, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				two := checkpoint.Options{Retention: checkpoint.Retention{Last: 2}}
				o, _ := w.ownerWith(two)
				commit(w, o, with(1, 20<<10))
				commit(w, o, with(2, 20<<10))
				synctest.Wait() // o's own clean-up can read
				heir, store := w.ownerWith(two, faultstore.Fault{Kind: faultstore.FailBefore, Verb: "get", Key: c.key, Err: backend.ErrPermission})
				commit(w, heir, with(3, 20<<10))
				synctest.Wait()
				w.wantObjects(segments, c.left)
				if n := heir.CleanupFailures(); n != c.failures {
					t.Errorf("%d clean-ups have failed, want %d", n, c.failures)
				}
				if unfired := store.Unfired(); len(unfired) > 0 {
					t.Errorf("did not fire: %v", unfired)
				}
				store.Heal()
				commit(w, heir, with(4, 20<<10))
				synctest.Wait()
				w.wantObjects(segments, 2)
				w.wantReadable()
			})
		})
	}
}

// The same after the owner's collection, which it makes only once.
func TestCleanUpThatCannotReadIsDoneAfterTheCollection(t *testing.T) {
	inWorld(t, func(w *world) {
		three := checkpoint.Options{Retention: checkpoint.Retention{Last: 3}}
		o, _ := w.ownerWith(three)
		commit(w, o, with(1, 20<<10)) // 2
		commit(w, o, with(2, 20<<10))
		heir, store := w.ownerWith(three)
		commit(w, heir, with(3, 20<<10))
		synctest.Wait() // for the collection
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "get", Key: format.ManifestKey(dir, 2), Err: backend.ErrPermission})
		commit(w, heir, with(4, 20<<10)) // drops number 2
		synctest.Wait()
		w.wantObjects(segments, 4)
		store.Heal()
		commit(w, heir, with(5, 20<<10))
		synctest.Wait()
		w.wantObjects(segments, 3)
		w.wantReadable()
	})
}

// A dropped checkpoint whose manifest is damaged does not stop the clean-up.
func TestDamagedManifestDoesNotStopTheCleanUp(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 20<<10))
		heir, _ := w.ownerWith(lastOne) // an owner that has not read it
		if _, err := w.bucket.Open().Put(w.Context(), format.ManifestKey(dir, 2), []byte("rubbish")); err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			commit(w, heir, with(n+2, 20<<10))
		}
		synctest.Wait()
		w.wantObjects(segments, 1) // segments that no manifest names any more were collected
		w.wantHistory("4")
	})
}

func TestSegmentsOfFailedCommitsAreDeleted(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.ownerWith(lastOne)
		commit(w, o, with(1, 550<<10))
		for _, fault := range []faultstore.Fault{
			{Kind: faultstore.FailBefore, Verb: "put", On: 2, Err: backend.ErrNoSpace},
			{Kind: faultstore.FailBefore, Verb: "create", On: 1, Err: backend.ErrPermission},
		} {
			store.Arm(fault)
			if _, err := o.Commit(w.Context(), with(2, 550<<10)); !errors.Is(err, fault.Err) {
				t.Errorf("commit: %v, want %v", err, fault.Err)
			}
			synctest.Wait()
			w.wantObjects(segments, 3)
			w.wantReadable()
		}
		task, _, store := w.open(lastOne, faultstore.Fault{Kind: faultstore.FailBefore, Verb: "put", On: 2, Err: backend.ErrNoSpace})
		if _, err := task.Save(w.Context(), with(3, 550<<10), checkpoint.SaveOptions{Fence: true}); !errors.Is(err, backend.ErrNoSpace) {
			t.Errorf("save: %v, want ErrNoSpace", err)
		}
		w.wantObjects(segments, 3)
		store.Heal()
		commit(w, o, with(4, 550<<10))
		synctest.Wait()
		w.wantObjects(segments, 3)
		w.wantReadable()
	})
}

// A state that cannot be read may have had segments uploaded. They are deleted.
func TestSegmentsOfAStateThatCannotBeReadAreDeleted(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		broken := errors.New("broken")
		_, err := o.Commit(w.Context(), checkpoint.Snapshot{
			State: checkpoint.Stream("s", failsAfter(bytes.NewReader(noise(550<<10)), broken)),
		})
		if !errors.Is(err, broken) {
			t.Errorf("commit: %v", err)
		}
		synctest.Wait()
		w.wantObjects(segments, 0)
	})
}

// While a commit is in doubt, its segments are kept.
func TestSegmentsOfACommitInDoubtAreKept(t *testing.T) {
	for _, landed := range []bool{false, true} {
		t.Run(fmt.Sprint("landed ", landed), func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, store := w.ownerWith(lastOne, faultstore.Fault{Kind: faultstore.Zombie, Verb: "create"})
				if _, err := o.Commit(w.Context(), with(1, 550<<10)); !errors.Is(err, checkpoint.ErrUnknown) {
					t.Errorf("commit: %v, want ErrUnknown", err)
				}
				synctest.Wait()
				w.wantObjects(segments, 3)
				store.Heal()
				if landed {
					store.Land()
					w.wantReadable()
				}
				s := with(2, 20<<10)
				s.Savepoint = "two"
				commit(w, o, s)
				synctest.Wait()
				w.wantObjects(segments, 1)
				w.wantHistory("2")
				w.wantReadable()
			})
		})
	}
}

func TestFencedOwnerDeletesOnlyItsOwn(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 550<<10))
		heir, _ := w.ownerWith(lastOne)
		if _, err := o.Commit(w.Context(), with(99, 550<<10)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("commit: %v, want ErrFenced", err)
		}
		synctest.Wait()
		w.wantObjects(segments, 3)
		w.wantReadable()
		commit(w, heir, with(2, 550<<10))
		synctest.Wait()
		w.wantObjects(segments, 3)
		w.wantReadable()
	})
}

// A segment that two checkpoints name is deleted with the second of them.
func TestSharedSegmentsAreKept(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		first := commit(w, o, with(1, 550<<10))
		m := w.manifest(first.Seq)
		m.Retained = []format.Retained{{Seq: first.Seq, Time: first.Time}}
		m.Seq, m.Checkpoint.Seq, m.Token = m.Seq+1, m.Seq+1, format.Token{1}
		w.put(m)
		heir, _ := w.ownerWith(checkpoint.Options{Retention: checkpoint.Retention{Last: 2}})
		commit(w, heir, at(2)) // drops the first checkpoint
		synctest.Wait()
		w.wantHistory("2 1")
		w.wantObjects(segments, 3)
		w.wantReadable()
		commit(w, heir, at(3))
		synctest.Wait()
		w.wantHistory("3 2")
		w.wantObjects(segments, 0)
	})
}

// An owner sleeps while it finds out what a retained checkpoint needs. Meanwhile
// another process rolls back to that checkpoint, commits, and retires it. Then the
// owner reads a late save under the same number.
func TestCleanerReadsAManifestThatCameLate(t *testing.T) {
	inWorld(t, func(w *world) {
		two := checkpoint.Options{Retention: checkpoint.Retention{Last: 2}}
		saver, _, _ := w.open(two)
		state := with(1, 20<<10)
		for range 2 { // both name the same segment
			state.State = with(1, 20<<10).State
			if _, err := saver.Save(w.Context(), state, checkpoint.SaveOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		late := *w.manifest(2) // another save, after number 1, is about to send this
		late.Writer[0] ^= 1
		saved := *late.Checkpoint
		saved.Content, late.Checkpoint = &format.Content{Offsets: at(99).Offsets}, &saved

		owner, _ := w.ownerWith(two, faultstore.Fault{ // 3
			Kind: faultstore.Delay, Verb: "get", Key: format.ManifestKey(dir, 2), On: 1, For: 8 * time.Hour,
		})
		commit(w, owner, at(4)) // drops number 1
		synctest.Wait()

		task, _, _ := w.open(two)
		back, err := task.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(2)}) // 5
		if err != nil {
			t.Fatal(err)
		}
		w.Cleanup(func() { _ = back.Close(context.Background()) })
		for range 4 {
			time.Sleep(checkpoint.FenceWindow)
			state.State = with(1, 20<<10).State
			commit(w, back, state)
			synctest.Wait()
		}
		if w.exists(format.ManifestKey(dir, 2)) {
			t.Fatal("manifest 2 has not been deleted")
		}
		w.put(&late)
		time.Sleep(8 * time.Hour)
		synctest.Wait()
		w.wantReadable()
	})
}

// After any sequence of actions by writers, everything retained can be read and
// nothing else takes up space.
func TestCleanUpIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) { run(t, cleanUpIsExact) })
	})
}

func cleanUpIsExact(w *world) {
	t := w.tester.(*rapid.T)
	opts := checkpoint.Options{Memory: 4 << 20, Retention: checkpoint.Retention{Last: rapid.IntRange(1, 3).Draw(t, "last")}}
	o, store := w.ownerWith(opts)
	n := 0
	snapshot := func() checkpoint.Snapshot {
		n++
		s := with(n, rapid.SampledFrom([]int{0, 80, 20 << 10, 70 << 10}).Draw(t, "size"))
		if rapid.IntRange(0, 4).Draw(t, "named") == 0 {
			s.Savepoint = fmt.Sprint("n", n)
		}
		return s
	}
	t.Repeat(map[string]func(*rapid.T){
		"commit": func(t *rapid.T) {
			_, err := o.Commit(w.Context(), snapshot())
			if err != nil && !errors.Is(err, checkpoint.ErrFenced) {
				t.Fatal(err)
			}
			if errors.Is(err, checkpoint.ErrUnknown) {
				// Its number was free again, so its manifest is in the store. A
				// collector decides about the segments that it uploaded.
				w.collect(checkpoint.CollectOptions{})
			}
		},
		"fail": func(t *rapid.T) {
			verb := rapid.SampledFrom([]string{"put", "create"}).Draw(t, "verb")
			store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: verb, On: 1, Err: backend.ErrPermission})
			_, _ = o.Commit(w.Context(), snapshot())
			store.Disarm()
		},
		"claim": func(t *rapid.T) { o, store = w.ownerWith(opts) },
		"release": func(t *rapid.T) {
			_ = o.Release(w.Context())
			o, store = w.ownerWith(opts)
		},
		"save": func(t *rapid.T) {
			task, _, _ := w.open(opts)
			if _, err := task.Save(w.Context(), snapshot(), checkpoint.SaveOptions{Fence: true}); err != nil {
				t.Fatal(err)
			}
		},
		"prune": func(t *rapid.T) {
			task, _, _ := w.open(opts)
			_, err := task.Prune(w.Context(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{})
			if err != nil && !errors.Is(err, checkpoint.ErrNoCheckpoint) {
				t.Fatal(err)
			}
		},
		"sleep": func(t *rapid.T) {
			time.Sleep(rapid.SampledFrom([]time.Duration{time.Minute, 2 * time.Hour}).Draw(t, "for"))
		},
		"": func(t *rapid.T) {
			synctest.Wait()
			w.wantReadable()
			w.wantNothingNeedless()
		},
	})
}

// wantNothingNeedless compares the segments in the store with those that the retained
// checkpoints name.
func (w *world) wantNothingNeedless() {
	w.Helper()
	task, _, _ := w.process()
	list, err := task.List(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	var needed int64
	for _, c := range list {
		if c.NewBytes > 16<<10 {
			needed += c.NewBytes
		}
	}
	for _, o := range w.objects(segments) {
		needed -= o.Size
	}
	if needed != 0 {
		w.Errorf("%d bytes in segments too few", needed)
	}
}

// A clean-up that cannot read what was dropped forgets nothing of what an earlier one could
// not delete.
func TestCleanUpThatCannotReadForgetsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		four := checkpoint.Options{Retention: checkpoint.Retention{Last: 4}}
		o, _ := w.ownerWith(four)
		for n := range 3 {
			commit(w, o, with(n+1, 20<<10)) // 2 to 4
		}
		heir, store := w.ownerWith(four)
		commit(w, heir, with(4, 20<<10))
		synctest.Wait() // for the collection
		store.Arm(
			faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", Err: backend.ErrPermission},
			faultstore.Fault{Kind: faultstore.FailBefore, Verb: "delete", Err: backend.ErrPermission},
		)
		if _, err := heir.Commit(w.Context(), with(5, 20<<10)); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("err = %v", err)
		}
		synctest.Wait()
		w.wantObjects(segments, 5) // the last one could not be deleted
		store.Heal()
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "get", Key: format.ManifestKey(dir, 2), Err: backend.ErrPermission})
		commit(w, heir, with(5, 20<<10)) // drops number 2
		synctest.Wait()
		if left := store.Unfired(); len(left) > 0 {
			t.Errorf("did not fire: %v", left)
		}
		store.Heal()
		commit(w, heir, with(6, 20<<10))
		synctest.Wait()
		w.wantObjects(segments, 4)
		w.wantReadable()
	})
}
