package checkpoint_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// onlyFirst deletes only the first key of a batch and then fails: Delete is not
// atomic.
type onlyFirst struct{ backend.Store }

func (s onlyFirst) Delete(ctx context.Context, keys ...string) error {
	return errors.Join(s.Store.Delete(ctx, keys[:1]...), fs.ErrPermission)
}

// The clean-up of a prune reads a late manifest instead of the newest one.
func TestPrunerReadsALateManifest(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.ownerWith(keepAll) // 1
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "delete", Err: backend.ErrPermission})
		commit(w, o, with(1, 20<<10)) // 2
		commit(w, o, with(1, 20<<10)) // 3, with the same segment
		commit(w, o, with(2, 20<<10)) // 4
		creates, lists, gets := 0, 0, 0
		var late *faultstore.Store
		task := w.hookedTask(keepAll, func(verb, key string) {
			switch {
			case verb == "create":
				creates++
			case creates == 1 && verb == "list":
				if lists++; lists == 2 { // the first list confirmed number 5
					other, _, s := w.open(keepAll, faultstore.Fault{Kind: faultstore.CrashZombie, Verb: "create", On: 1})
					late = s
					if _, err := other.Prune(w.Context(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{}); err == nil {
						t.Error("the other pruner did not die")
					}
					mustDo(w, addSavepoint(w, "x", checkpoint.Seq(3))) // 6
				}
			case lists == 2 && verb == "get":
				if gets++; gets == 1 { // it will read number 6
					time.Sleep(2 * checkpoint.FenceWindow)
					commit(w, o, with(3, 20<<10)) // 7
					synctest.Wait()
					job := newJob(w, onlyFirst{w.bucket.Open()}, keepAll)
					collector, _ := job.Task("orders/7")
					_, err := collector.Collect(w.Context(), checkpoint.CollectOptions{})
					if w.exists(format.ManifestKey(dir, 6)) || !w.exists(format.ManifestKey(dir, 2)) {
						t.Fatalf("collected: %v", err)
					}
					late.Land()
				}
			}
		})
		if _, err := task.Prune(w.Context(), checkpoint.Retention{Last: 2}, checkpoint.PruneOptions{}); err != nil { // 5
			t.Fatal(err)
		}
		w.wantNames("7 4 3x")
		w.wantReadable()
	})
}

// The name of a removed savepoint can be used again.
func TestNameOfARemovedSavepointIsFree(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		s := with(1, 20<<10)
		s.Savepoint = "x"
		commit(w, o, s)
		task, _, _ := w.process()
		mustDo(t, second(task.RemoveSavepoint(w.Context(), "x")))
		s = with(2, 20<<10)
		s.Savepoint = "x"
		if _, err := o.Commit(w.Context(), s); err != nil {
			t.Errorf("%v", err)
		}
	})
}

// The owner commits on top of an amendment of the latest checkpoint before the
// amendment is confirmed.
func TestAmendmentOfTheLatestIsFollowed(t *testing.T) {
	for _, what := range []string{"savepoint", "note", "note on what is dropped then"} {
		t.Run(what, func(t *testing.T) {
			inWorld(t, func(w *world) {
				opts := keepAll
				if what == "note on what is dropped then" {
					opts = lastOne
				}
				o, _ := w.ownerWith(opts)
				commit(w, o, at(1)) // 2
				created, followed := false, false
				task := w.hookedTask(keepAll, func(verb, _ string) {
					created = created || verb == "create"
					if created && verb == "list" && !followed {
						followed = true
						commit(w, o, at(2)) // 4
					}
				})
				var err error
				if what != "savepoint" {
					err = second(task.Annotate(w.Context(), checkpoint.Ref{}, checkpoint.Note{Text: "x"}))
				} else {
					err = second(task.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{}))
				}
				if err != nil {
					t.Errorf("%v", err)
				}
				list, _ := task.List(w.Context())
				n := 0
				for _, c := range list {
					if c.Note.Text != "" {
						n++
					}
				}
				if n > 1 {
					t.Errorf("%d checkpoints have the note", n)
				}
			})
		})
	}
}

// Two commits come between an amendment of the latest checkpoint and its
// confirmation. Nothing shows whether it was committed, and it is made again, for the
// same checkpoint.
func TestAmendmentOfTheLatestIsMadeOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		commit(w, o, at(1)) // 2
		followed := false
		task := w.hookedTask(keepAll, func(verb, key string) {
			if verb == "get" && key == format.ManifestKey(dir, 4) { // this would show whether it was committed
				if !followed {
					followed = true
					time.Sleep(2 * checkpoint.FenceWindow)
					commit(w, o, at(3)) // 5
					synctest.Wait()
					w.remove(key)
				}
			}
			if verb == "list" && w.newestSeq() == 3 && !followed {
				commit(w, o, at(2)) // 4
			}
		})
		if _, err := task.Annotate(w.Context(), checkpoint.Ref{}, checkpoint.Note{Text: "x"}); err != nil {
			t.Fatal(err)
		}
		list, err := task.List(w.Context())
		if err != nil && !errors.Is(err, checkpoint.ErrCorrupt) {
			t.Fatal(err)
		}
		for _, c := range list {
			if (c.Note.Text != "") != (c.Seq == 2) {
				t.Errorf("checkpoint %d has the note %q", c.Seq, c.Note.Text)
			}
		}
	})
}

// An owner reads a late claim instead of an amendment, and is not fenced.
func TestLateClaimFencesNobody(t *testing.T) {
	for _, what := range []string{"check", "commit"} {
		t.Run(what, func(t *testing.T) {
			inWorld(t, func(w *world) {
				var hook func(verb string)
				task := w.hookedTask(keepAll, func(verb, _ string) {
					if hook != nil {
						hook(verb)
					}
				})
				o := claim(w, task)
				commit(w, o, at(1)) // 2
				synctest.Wait()
				dead, _, late := w.open(keepAll, faultstore.Fault{Kind: faultstore.CrashZombie, Verb: "create", On: 1})
				if _, err := dead.Claim(w.Context(), checkpoint.ClaimOptions{}); err == nil {
					t.Fatal("the claimer did not die")
				}
				mustDo(t, addSavepoint(w, "x", checkpoint.Ref{})) // 3
				hook = func(verb string) {
					if verb != "get" {
						return
					}
					hook = nil
					time.Sleep(2 * checkpoint.FenceWindow)
					other, _, _ := w.process()
					mustDo(w, second(other.RenameSavepoint(w.Context(), "x", "y"))) // 4
					w.collect(checkpoint.CollectOptions{})
					if w.exists(format.ManifestKey(dir, 3)) {
						t.Fatal("manifest 3 is still there")
					}
					late.Land()
				}
				var err error
				if what == "check" {
					err = o.Check(w.Context())
				} else {
					_, err = o.Commit(w.Context(), at(2))
				}
				if err != nil {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// An amendment reads a late claim that has no checkpoint.
func TestAmenderReadsALateClaim(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne) // 1
		dead, _, late := w.open(keepAll, faultstore.Fault{Kind: faultstore.CrashZombie, Verb: "create", On: 1})
		if _, err := dead.Claim(w.Context(), checkpoint.ClaimOptions{}); err == nil {
			t.Fatal("the claimer did not die")
		}
		commit(w, o, at(1)) // 2
		slept := false
		task := w.hookedTask(keepAll, func(verb, _ string) {
			if verb != "get" || slept {
				return
			}
			slept = true
			time.Sleep(2 * checkpoint.FenceWindow)
			commit(w, o, at(2))
			synctest.Wait()
			time.Sleep(2 * checkpoint.FenceWindow)
			commit(w, o, at(3))
			synctest.Wait()
			if w.exists(format.ManifestKey(dir, 2)) {
				t.Fatal("manifest 2 is still there")
			}
			late.Land()
		})
		if err := second(task.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{})); err != nil {
			t.Errorf("%v", err)
		}
	})
}

// Notes cannot fill the manifest so far that nobody can claim or release the task.
func TestNotesLeaveRoomForTheOwner(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		for n := range 150 {
			commit(w, o, at(n+1))
		}
		task, _, _ := w.process()
		for seq := uint64(2); seq < 151; seq++ {
			text := 512
			for text > 0 {
				err := second(task.Annotate(w.Context(), checkpoint.Seq(seq), checkpoint.Note{Text: strings.Repeat("x", text)}))
				if err == nil {
					break
				}
				text--
			}
			if text < 512 {
				break
			}
		}
		if err := o.Release(w.Context()); err != nil {
			t.Errorf("release: %v", err)
		}
		heir, _, _ := w.process()
		if _, err := heir.Claim(w.Context(), checkpoint.ClaimOptions{}); err != nil {
			t.Errorf("claim: %v", err)
		}
	})
}

// The number of requests of a commit that finds an amendment made some minutes ago.
func TestCommitAfterAnAmendmentCosts(t *testing.T) {
	inWorld(t, func(w *world) {
		task, job, _ := w.open(keepAll)
		o := claim(w, task)
		commit(w, o, at(1))
		synctest.Wait()
		mustDo(t, addSavepoint(w, "x", checkpoint.Ref{}))
		time.Sleep(10 * time.Minute)
		before := job.Stats()
		commit(w, o, at(2))
		after := job.Stats()
		if n := after.List.Calls - before.List.Calls; n != 2 { // before and after the read, the manifest must be the newest
			t.Errorf("%d lists, want 2", n)
		}
	})
}

// blink reports once that a manifest does not exist.
type blink struct {
	backend.Store
	on *bool
}

func (s blink) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	if *s.on && strings.Contains(key, manifests) {
		*s.on = false
		return 0, fs.ErrNotExist
	}
	return s.Store.Get(ctx, key, offset, p)
}

// One Get wrongly reports ErrNotExist, which breaks A2.
func TestOneReadThatFindsNothing(t *testing.T) {
	for _, amended := range []bool{false, true} {
		inWorld(t, func(w *world) {
			on := false
			store := faultstore.Wrap(w, blink{w.bucket.Open(), &on})
			opts := keepAll
			opts.Backoff = backend.Backoff{Attempts: 2}
			job := newJob(w, store, opts)
			task, _ := job.Task("orders/7")
			o := claim(w, task)
			for n := range 3 {
				commit(w, o, with(n+1, 20<<10)) // 2, 3, 4
			}
			synctest.Wait()
			if amended {
				store.Arm(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1}, faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", Err: backend.ErrThrottled})
				if _, err := o.Commit(w.Context(), with(4, 20<<10)); !errors.Is(err, checkpoint.ErrUnknown) { // 5
					t.Fatal(err)
				}
				store.Disarm()
				mustDo(t, addSavepoint(w, "x", checkpoint.Ref{})) // 6
			} else {
				store.Arm(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1})
			}
			on = true
			commit(w, o, with(5, 20<<10))
			synctest.Wait()
			time.Sleep(2 * checkpoint.FenceWindow)
			commit(w, o, with(6, 20<<10))
			synctest.Wait()
			want := 5
			if amended {
				want++ // the commit in doubt took effect
			}
			if list := w.names(); len(strings.Fields(list)) != want {
				t.Errorf("amended %v: the checkpoints are %s", amended, list)
			}
			w.wantReadable()
		})
	}
}
