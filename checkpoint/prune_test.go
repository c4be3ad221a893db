package checkpoint_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

var (
	keepOne = checkpoint.Retention{Last: 1}
	keepTwo = checkpoint.Retention{Last: 2}
)

// saved makes a task with checkpoints 1 to n, each with its own segment, that nobody
// owns.
func (w *world) saved(n int) *checkpoint.Task {
	w.Helper()
	task, _, _ := w.open(keepAll)
	for i := range n {
		if _, err := task.Save(w.Context(), with(i+1, 20<<10), checkpoint.SaveOptions{}); err != nil {
			w.Fatal(err)
		}
	}
	return task
}

func TestPruneBesideAnOwner(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll) // manifest 1
		for n := range 4 {
			commit(w, o, with(n+1, 20<<10)) // 2 to 5
		}
		synctest.Wait()
		task, _, _ := w.process()
		dry, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{DryRun: true})
		if err != nil || verdicts(dry) != "5:current,last 4:last" || dry.Segments != 2 {
			t.Errorf("a dry run: %+v, %v", dry, err)
		}
		all := checkpoint.Retention{Last: 4}
		if p, err := task.Prune(w.Context(), all, checkpoint.PruneOptions{}); err != nil || p.Segments != 0 || len(p.Checkpoints) != 4 {
			t.Errorf("with nothing to drop: %+v, %v", p, err)
		}
		p, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{})
		if err != nil || verdicts(p) != "5:current,last 4:last" || p.Segments != 2 {
			t.Errorf("%+v, %v", p, err)
		}
		w.wantCheckpoints(5, 4)
		w.wantObjects(segments, 2) // although their writer is the present one
		if s, err := task.Status(w.Context()); err != nil || !s.Claimed || s.Epoch != 1 || s.Manifest != 6 {
			t.Errorf("status %+v, %v", s, err)
		}
		commit(w, o, with(5, 20<<10)) // nobody was fenced
		w.wantCheckpoints(7, 5, 4)
		synctest.Wait()
		w.wantObjects(segments, 3)
	})
}

func TestPruneOfNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, _ := w.process()
		want := func(what string) {
			t.Helper()
			for _, dry := range []bool{false, true} {
				if _, err := task.Prune(w.Context(), keepOne, checkpoint.PruneOptions{DryRun: dry}); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
					t.Errorf("%s, dry %v: %v, want ErrNoCheckpoint", what, dry, err)
				}
			}
		}
		want("there is no task")
		o, _ := w.owner()
		want("there is no checkpoint")
		commit(w, o, with(1, 20<<10))
		if err := o.Release(w.Context()); err != nil {
			t.Fatal(err)
		}
		w.wantPruned(checkpoint.Retention{Daily: 1}, "2:current,daily")
	})
}

// A prune makes a manifest only if it removes something. The task can be claimed
// after it.
func TestPruneIsAManifest(t *testing.T) {
	inWorld(t, func(w *world) {
		task := w.saved(3)
		for range 3 {
			if _, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		w.wantCheckpoints(3, 2)
		s, err := task.Status(w.Context())
		if err != nil || s.Manifest != 4 || s.Epoch != 3 || s.Claimed || s.Latest.Seq != 3 {
			t.Errorf("status %+v, %v; want one manifest more", s, err)
		}
		o := claim(w, task)
		if c, err := o.Checkpoint(w.Context()); err != nil || c.Offsets["in"] != "3" {
			t.Errorf("an owner goes on from %+v, %v", c, err)
		}
		commit(w, o, with(4, 20<<10))
		w.wantCheckpoints(6, 3, 2)
	})
}

// Segments that several checkpoints share are counted, and removed, with the last of
// them.
func TestPruneCountsWhatIsShared(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, _ := w.open(keepAll)
		for range 3 {
			if _, err := task.Save(w.Context(), with(1, 100<<10), checkpoint.SaveOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := task.Save(w.Context(), with(2, 100<<10), checkpoint.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ keep, segments int }{{3, 0}, {2, 0}, {1, 2}} {
			dry, err := task.Prune(w.Context(), checkpoint.Retention{Last: c.keep}, checkpoint.PruneOptions{DryRun: true})
			if err != nil {
				t.Fatal(err)
			}
			p, err := task.Prune(w.Context(), checkpoint.Retention{Last: c.keep}, checkpoint.PruneOptions{})
			if err != nil || p.Segments != c.segments || p.Segments != dry.Segments || p.Bytes != dry.Bytes {
				t.Errorf("last %d: %+v, %v; want %d segments; dry %+v", c.keep, p, err, c.segments, dry)
			}
			w.wantReadable()
		}
		w.wantNothingNeedless()
	})
}

// A prune also deletes what other writers left, but does not count it.
func TestPruneCollects(t *testing.T) {
	inWorld(t, func(w *world) {
		task := w.saved(3)
		time.Sleep(2 * checkpoint.FenceWindow)
		if _, err := task.Save(w.Context(), with(4, 20<<10), checkpoint.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		garbage := w.segment(2, 0xee, 0)
		p, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{})
		if err != nil || p.Segments != 2 {
			t.Errorf("%+v, %v; want 2 segments", p, err)
		}
		if w.exists(garbage) {
			t.Error("garbage was not deleted")
		}
		w.wantObjects(segments, 2)
		w.wantObjects(manifests, 3) // 4 and 3, and that of the prune
		w.wantCheckpoints(4, 3)
	})
}

func TestPruneIsOvertaken(t *testing.T) {
	throttled := faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", On: 1, Err: backend.ErrThrottled}
	for _, c := range []struct {
		name string
		by   func(w *world)
		want string
		stay []uint64
	}{
		{"by a save", func(w *world) {
			task, _, _ := w.open(keepAll)
			if _, err := task.Save(w.Context(), with(5, 20<<10), checkpoint.SaveOptions{}); err != nil {
				w.Fatal(err)
			}
		}, "5:current,last 4:last", []uint64{5, 4}},
		{"by a save that keeps no more", func(w *world) {
			task, _, _ := w.open(lastOne)
			if _, err := task.Save(w.Context(), with(5, 20<<10), checkpoint.SaveOptions{}); err != nil {
				w.Fatal(err)
			}
		}, "5:current,last", []uint64{5}},
		{"by a claim", func(w *world) { w.ownerWith(keepAll) }, "4:current,last 3:last", []uint64{4, 3}},
		{"by a rollback", func(w *world) {
			task, _, _ := w.process()
			if _, err := task.Rollback(w.Context(), checkpoint.Seq(1), checkpoint.RollbackOptions{}); err != nil {
				w.Fatal(err)
			}
		}, "1:current,last 4:last", []uint64{1, 4}},
		{"by another prune", func(w *world) {
			task, _, _ := w.process()
			if _, err := task.Prune(w.Context(), checkpoint.Retention{Last: 3}, checkpoint.PruneOptions{}); err != nil {
				w.Fatal(err)
			}
		}, "4:current,last 3:last", []uint64{4, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.saved(4)
				task, _, _ := w.process(throttled)
				type outcome struct {
					checkpoint.PruneResult
					error
				}
				done := make(chan outcome)
				go func() {
					p, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{})
					done <- outcome{p, err}
				}()
				synctest.Wait() // it waits before it tries again
				c.by(w)
				if got := <-done; got.error != nil || verdicts(got.PruneResult) != c.want {
					t.Errorf("%s, %v; want %s", verdicts(got.PruneResult), got.error, c.want)
				}
				w.wantCheckpoints(c.stay...)
				w.collect(checkpoint.CollectOptions{})
				w.wantNothingNeedless()
			})
		})
	}
}

// Another writer goes on from a prune before the prune has checked whether it was
// committed. It was, and Prune says so.
func TestPruneIsContinuedByAnother(t *testing.T) {
	for name, c := range map[string]struct {
		n    int
		late bool // so long before that the manifest after the prune's is gone too
	}{"short list": {4, false}, "long list": {400, false}, "long before": {4, true}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				n, commits := c.n, 1
				w.forgeOwned(n)
				creates, heir := 0, (*checkpoint.Owner)(nil)
				task := w.hookedTask(keepAll, func(verb, _ string) {
					if verb == "create" {
						creates++
					}
					if verb == "list" && creates == 1 && heir == nil { // made
						heir, _ = w.ownerWith(keepAll)
						for c.late && commits < 4 {
							commit(w, heir, at(commits))
							commits++
							time.Sleep(checkpoint.FenceWindow)
							synctest.Wait()
						}
					}
				})
				p, err := task.Prune(w.Context(), checkpoint.Retention{Last: n - 1}, checkpoint.PruneOptions{})
				if err != nil || len(p.Checkpoints) != n || !p.Checkpoints[n-1].Removed() || p.Checkpoints[n-2].Removed() {
					t.Errorf("%d checkpoints, %v", len(p.Checkpoints), err)
				}
				if heir == nil {
					t.Fatal("nobody claimed")
				}
				commit(w, heir, with(1, 20<<10)) // it was not fenced
				list, err := task.List(w.Context())
				if err != nil || len(list) != n-1+commits {
					t.Errorf("%d checkpoints, %v; want %d", len(list), err, n-1+commits)
				}
			})
		})
	}
}

// forgeOwned makes n checkpoints by an owner that released the task.
func (w *world) forgeOwned(n int) {
	w.Helper()
	o, _ := w.ownerWith(keepAll)
	for i := range n {
		commit(w, o, at(i+1))
	}
	if err := o.Release(w.Context()); err != nil {
		w.Fatal(err)
	}
}

// A retained list that is too large for the manifest gets shorter, and then fits.
func TestPruneOfALongList(t *testing.T) {
	inWorld(t, func(w *world) {
		w.forgeOwned(800) // 2 to 801
		task, _, _ := w.process(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1})
		p, err := task.Prune(w.Context(), checkpoint.Retention{Last: 700}, checkpoint.PruneOptions{})
		if err != nil || len(p.Checkpoints) != 800 {
			t.Fatalf("%d checkpoints, %v", len(p.Checkpoints), err)
		}
		list, err := task.List(w.Context())
		if err != nil || len(list) != 700 || list[699].Seq != 102 {
			t.Fatalf("%d checkpoints, %v; want 700", len(list), err)
		}
		w.wantSmallManifests()
		if _, err := task.Prune(w.Context(), keepOne, checkpoint.PruneOptions{}); err != nil {
			t.Fatal(err)
		}
		w.wantCheckpoints(801)
		w.wantObjects(segments, 0)
	})
}

// Whichever call fails, and however: either everything that was asked for has
// happened or nothing, the result of Prune is true, and a second Prune completes it.
func TestPruneFailsAnywhere(t *testing.T) {
	for _, kind := range []faultstore.Kind{
		faultstore.FailBefore, faultstore.LoseReply, faultstore.Zombie, faultstore.CrashFirst, faultstore.CrashAfter,
	} {
		t.Run(string(kind), func(t *testing.T) {
			for k := 1; ; k++ {
				fired := false
				inWorld(t, func(w *world) {
					w.saved(4)
					task, _, store := w.open(keepAll)
					fault := faultstore.Fault{Kind: kind, On: k}
					if kind == faultstore.FailBefore {
						fault.Err = backend.ErrPermission
					}
					store.Arm(fault)
					_, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{})
					fired = len(store.Unfired()) == 0
					store.Disarm()
					store.Heal()
					store.Land()
					switch history := w.history(); {
					case history == "4 3":
						// A process that died has no result.
						if err != nil && !errors.Is(err, checkpoint.ErrUnknown) && !errors.Is(err, faultstore.ErrCrashed) {
							t.Errorf("call %d: pruned, but the error is %v", k, err)
						}
					case history != "4 3 2 1":
						t.Errorf("call %d: the history is %q", k, history)
					case err == nil:
						t.Errorf("call %d: not pruned, but there is no error", k)
					}
					w.wantReadable()
					again, _, _ := w.process()
					if _, err := again.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{}); err != nil {
						t.Errorf("call %d, again: %v", k, err)
					}
					w.wantHistory("4 3")
					w.wantReadable()
					w.collect(checkpoint.CollectOptions{})
					w.wantObjects(segments, 2)
				})
				if !fired {
					if k < 10 {
						t.Errorf("there were only %d calls", k-1)
					}
					break
				}
			}
		})
	}
}

// A prune succeeds even if its clean-up fails or there is no time for it.
func TestPruneWithoutItsCleanUp(t *testing.T) {
	for name, fault := range map[string]faultstore.Fault{
		"delete": {Kind: faultstore.FailBefore, Verb: "delete", Err: backend.ErrPermission},
		"count":  {Kind: faultstore.FailBefore, Verb: "list", Key: segments, Err: backend.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.saved(4)
				task, _, _ := w.process(fault)
				if p, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{}); err != nil || verdicts(p) != "4:current,last 3:last" {
					t.Errorf("%+v, %v", p, err)
				}
				w.wantCheckpoints(4, 3)
				w.wantObjects(segments, 4)
				if got := w.collect(checkpoint.CollectOptions{}); got.Segments != 2 {
					t.Errorf("collected %+v", got)
				}
			})
		})
	}
	t.Run("context", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.saved(4)
			ctx, cancel := context.WithCancel(w.Context())
			task := w.hookedTask(keepAll, func(verb, key string) {
				if verb == "list" && strings.Contains(key, segments) {
					cancel()
				}
			})
			if _, err := task.Prune(ctx, keepTwo, checkpoint.PruneOptions{}); err != nil || ctx.Err() == nil {
				t.Errorf("%v, and the context's %v", err, ctx.Err())
			}
			w.wantCheckpoints(4, 3)
		})
	})
}

// A damaged checkpoint can be removed. While a damaged one is kept, it is unknown
// what it needs, and nothing is deleted.
func TestPruneBesideDamage(t *testing.T) {
	for _, c := range []struct {
		name    string
		damaged uint64
		freed   int
		left    int
	}{
		{"which is removed", 2, 1, 2}, // what it needed alone is collected, but not known to be its own
		{"which is kept", 3, 0, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				task := w.saved(4)
				if _, err := w.bucket.Open().Put(w.Context(), format.ManifestKey(dir, c.damaged), []byte("rubbish")); err != nil {
					t.Fatal(err)
				}
				dry, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{DryRun: true})
				if err != nil || dry.Segments != c.freed {
					t.Errorf("a dry run: %+v, %v", dry, err)
				}
				p, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{})
				if err != nil || p.Segments != c.freed || verdicts(p) != "4:current,last 3:last" {
					t.Errorf("%+v, %v", p, err)
				}
				w.wantObjects(segments, c.left)
			})
		})
	}
}
