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

// saved is a task with checkpoints 1 to n, each with a segment of its own, that
// nobody owns.
func (w *world) saved(n int) *checkpoint.Task {
	w.Helper()
	task, _, _ := w.open(keepAll)
	for i := range n {
		if _, err := task.Save(w.Context(), with(i+1, 20<<10)); err != nil {
			w.Fatal(err)
		}
	}
	return task
}

func TestPruneFencesNobodyUntold(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll) // manifest 1
		for n := range 4 {
			commit(w, o, with(n+1, 20<<10)) // 2 to 5
		}
		synctest.Wait()
		task, _, store := w.process()
		_, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{})
		if !errors.Is(err, checkpoint.ErrClaimed) || !strings.Contains(err.Error(), `task "orders/7" (epoch 1, writer `) {
			t.Errorf("%v, want ErrClaimed", err)
		}
		if n := store.Calls(); n != 2 {
			t.Errorf("a refusal takes %d requests, want 2", n)
		}
		dry, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{DryRun: true})
		if err != nil || verdicts(dry) != "5:current,last 4:last" || dry.Segments != 2 {
			t.Errorf("a dry run: %+v, %v", dry, err)
		}
		all := checkpoint.Retention{Last: 4}
		if p, err := task.Prune(w.Context(), all, checkpoint.PruneOptions{}); err != nil || p.Segments != 0 || len(p.Checkpoints) != 4 {
			t.Errorf("with nothing to drop: %+v, %v", p, err)
		}
		commit(w, o, with(5, 20<<10)) // nobody was fenced

		p, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{Fence: true})
		if err != nil || verdicts(p) != "6:current,last 5:last" || p.Segments != 3 {
			t.Errorf("%+v, %v", p, err)
		}
		w.wantCheckpoints(6, 5)
		w.wantObjects(segments, 2)
		if _, err := o.Commit(w.Context(), at(6)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("the owner's commit: %v, want ErrFenced", err)
		}
		if s, err := task.Status(w.Context()); err != nil || s.Claimed || s.Epoch != 2 || s.Seq != 7 {
			t.Errorf("status %+v, %v", s, err)
		}
		w.wantCheckpoints(6, 5)
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

// A step is made only if something goes, and the task can be claimed after it.
func TestPruneIsAStep(t *testing.T) {
	inWorld(t, func(w *world) {
		task := w.saved(3)
		for range 3 {
			if _, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		w.wantCheckpoints(3, 2)
		s, err := task.Status(w.Context())
		if err != nil || s.Seq != 4 || s.Epoch != 4 || s.Claimed || s.Latest.Seq != 3 {
			t.Errorf("status %+v, %v; want one step more", s, err)
		}
		o := claim(w, task)
		if c, err := o.Checkpoint(w.Context()); err != nil || c.Offsets["in"] != "3" {
			t.Errorf("an owner goes on from %+v, %v", c, err)
		}
		commit(w, o, with(4, 20<<10))
		w.wantCheckpoints(6, 3, 2)
	})
}

// What several checkpoints share is counted, and goes, with the last of them.
func TestPruneCountsWhatIsShared(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, _ := w.open(keepAll)
		for range 3 {
			if _, err := task.Save(w.Context(), with(1, 100<<10)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := task.Save(w.Context(), with(2, 100<<10)); err != nil {
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

// What has been left behind by others goes too, but is not what a prune frees.
func TestPruneCollects(t *testing.T) {
	inWorld(t, func(w *world) {
		task := w.saved(3)
		time.Sleep(2 * checkpoint.FenceWindow)
		if _, err := task.Save(w.Context(), with(4, 20<<10)); err != nil {
			t.Fatal(err)
		}
		garbage := w.segment(2, 0xee, 0)
		p, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{})
		if err != nil || p.Segments != 2 {
			t.Errorf("%+v, %v; want 2 segments", p, err)
		}
		if w.exists(garbage) {
			t.Error("garbage is still there")
		}
		w.wantObjects(segments, 2)
		w.wantObjects(manifests, 3) // 4 and 3, and that of the prune
		w.wantCheckpoints(4, 3)
	})
}

func TestPruneIsOvertaken(t *testing.T) {
	throttled := faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", On: 1, Err: backend.ErrThrottled}
	for _, c := range []struct {
		name  string
		by    func(w *world)
		fence bool
		want  string // "" is ErrClaimed
		stay  []uint64
	}{
		{"by a save", func(w *world) {
			task, _, _ := w.open(keepAll)
			if _, err := task.Save(w.Context(), with(5, 20<<10)); err != nil {
				w.Fatal(err)
			}
		}, false, "5:current,last 4:last", []uint64{5, 4}},
		{"by a save that keeps no more", func(w *world) {
			task, _, _ := w.open(lastOne)
			if _, err := task.Save(w.Context(), with(5, 20<<10)); err != nil {
				w.Fatal(err)
			}
		}, false, "4:current,last 3:last", []uint64{5}},
		{"by a claim", func(w *world) { w.ownerWith(keepAll) }, false, "", []uint64{4, 3, 2, 1}},
		{"by a claim, and fences", func(w *world) { w.ownerWith(keepAll) }, true, "4:current,last 3:last", []uint64{4, 3}},
		{"by a rollback", func(w *world) {
			task, _, _ := w.process()
			if _, err := task.Rollback(w.Context(), checkpoint.Seq(1)); err != nil {
				w.Fatal(err)
			}
		}, false, "1:current,last 4:last", []uint64{1, 4}},
		{"by another prune", func(w *world) {
			task, _, _ := w.process()
			if _, err := task.Prune(w.Context(), checkpoint.Retention{Last: 3}, checkpoint.PruneOptions{}); err != nil {
				w.Fatal(err)
			}
		}, false, "4:current,last 3:last", []uint64{4, 3}},
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
					p, err := task.Prune(w.Context(), keepTwo, checkpoint.PruneOptions{Fence: c.fence})
					done <- outcome{p, err}
				}()
				synctest.Wait() // it waits to try again
				c.by(w)
				switch got := <-done; {
				case c.want == "" && (!errors.Is(got.error, checkpoint.ErrClaimed) || errors.Is(got.error, checkpoint.ErrUnknown)):
					t.Errorf("%v, want ErrClaimed", got.error)
				case c.want != "" && (got.error != nil || verdicts(got.PruneResult) != c.want):
					t.Errorf("%s, %v; want %s", verdicts(got.PruneResult), got.error, c.want)
				}
				w.wantCheckpoints(c.stay...)
				w.collect(checkpoint.CollectOptions{})
				w.wantNothingNeedless()
			})
		})
	}
}

// Another writer goes on from a prune before that has looked whether it is a
// step. It is, and says so, also if the other is an owner who would be fenced.
func TestPruneIsGoneOnFrom(t *testing.T) {
	for name, n := range map[string]int{"short list": 4, "long list": 400} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.forgeOwned(n)
				creates, heir := 0, (*checkpoint.Owner)(nil)
				task := w.hookedTask(keepAll, func(verb, _ string) {
					if verb == "create" {
						creates++
					}
					if verb == "list" && creates == 2 && heir == nil { // made, and proven
						heir, _ = w.ownerWith(keepAll)
					}
				})
				p, err := task.Prune(w.Context(), checkpoint.Retention{Last: n - 1}, checkpoint.PruneOptions{})
				if err != nil || len(p.Checkpoints) != n || !p.Checkpoints[n-1].Removed() || p.Checkpoints[n-2].Removed() {
					t.Errorf("%d checkpoints, %v", len(p.Checkpoints), err)
				}
				if heir == nil {
					t.Fatal("nobody claimed")
				}
				commit(w, heir, with(1, 20<<10)) // who was not fenced
				list, err := task.List(w.Context())
				if err != nil || len(list) != n {
					t.Errorf("%d checkpoints, %v; want %d", len(list), err, n)
				}
			})
		})
	}
}

// forgeOwned makes n checkpoints by an owner who released the task.
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

// A list that is too large for the manifest gets shorter, and then fits.
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

// Whichever call fails, and however: what was asked for has happened wholly or
// not at all, what Prune says is true, and doing it again completes it.
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
						// A process that died says nothing.
						if err != nil && !errors.Is(err, checkpoint.ErrUnknown) && !errors.Is(err, faultstore.ErrCrashed) {
							t.Errorf("call %d: pruned, and it says %v", k, err)
						}
					case history != "4 3 2 1":
						t.Errorf("call %d: the history is %q", k, history)
					case err == nil:
						t.Errorf("call %d: not pruned, and it says nothing", k)
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

// A clean-up that fails, or for which there is no time, fails nothing.
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

// A damaged checkpoint can be dropped. While one that stays is damaged, nobody
// knows what it needs, and nothing is deleted.
func TestPruneBesideDamage(t *testing.T) {
	for _, c := range []struct {
		name    string
		damaged uint64
		freed   int
		left    int
	}{
		{"which goes", 2, 1, 2}, // what it needed alone is collected, but not known to be its own
		{"which stays", 3, 0, 4},
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
