package checkpoint_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

var giveUpList = checkpoint.RepairOptions{GiveUpList: true}

// longList makes a task whose list lies in pieces, and releases it. It returns what listKeys
// does.
func (w *world) longList() []string {
	w.Helper()
	w.forgeNamed(700, 100, func(seq uint64) string { return fmt.Sprint("savepoint ", seq) })
	o, _ := w.ownerWith(keepAll)
	mustDo(w, o.Release(w.Context()), o.Close(w.Context()))
	synctest.Wait()
	return w.listKeys()
}

// longListByCommits is longList for a task that exists.
func (w *world) longListByCommits() []string {
	w.Helper()
	o, _ := w.ownerWith(keepAll)
	w.noisy(o, 900)
	mustDo(w, o.Release(w.Context()), o.Close(w.Context()))
	synctest.Wait()
	return w.listKeys()
}

// withoutRaceDetector skips a test that makes a list of many checkpoints by committing them,
// which takes the race detector minutes. What runs side by side there, other tests run too.
func withoutRaceDetector(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("it takes minutes with the race detector")
	}
}

// listKeys returns the segments of the pieces of the newest list, and of its index last.
func (w *world) listKeys() (keys []string) {
	w.Helper()
	s := takeInventory(w, w.bucket)
	_, err := listOf(s.newest, func(c *format.Chunk) ([]byte, error) { return s.decode(c, nil) })
	mustDo(w, err)
	if len(s.newest.Pieces) < 2 {
		w.Fatalf("%d pieces", len(s.newest.Pieces))
	}
	for _, p := range s.newest.Pieces {
		keys = append(keys, format.SegmentKey(dir, p.Segment))
	}
	return append(keys, format.SegmentKey(dir, s.newest.RetainedAt.Segment))
}

// listed returns the numbers of the task's checkpoints.
func (w *world) listed() (seqs []uint64, err error) {
	task, _, _ := w.process()
	list, err := task.List(w.Context())
	for _, c := range list {
		seqs = append(seqs, c.Seq)
	}
	return seqs, err
}

// Whatever part of a list is lost: the task can be read as far as that is known, is not
// written to, and goes on when the rest is given up. Nothing is deleted by that.
func TestGiveUpList(t *testing.T) {
	for name, of := range map[string]func(pieces int) []int{
		"newer piece": func(int) []int { return []int{0} },
		"older piece": func(n int) []int { return []int{n - 1} },
		"all pieces": func(n int) (all []int) {
			for i := range n {
				all = append(all, i)
			}
			return all
		},
		"index": func(n int) []int { return []int{n} },
	} {
		for _, damage := range []string{"missing", "damaged"} {
			t.Run(name+" "+damage, func(t *testing.T) {
				inWorld(t, func(w *world) {
					keys := w.longList()
					whole, err := w.listed()
					mustDo(t, err)
					for _, i := range of(len(keys) - 1) {
						if w.remove(keys[i]); damage == "damaged" {
							w.write(keys[i], noise(3000))
						}
					}
					known, err := w.listed()
					if !errors.Is(err, checkpoint.ErrCorrupt) || len(known) == 0 || len(known) >= len(whole) || known[0] != whole[0] {
						t.Fatalf("%d checkpoints of %d are listed, %v", len(known), len(whole), err)
					}
					left := slices.DeleteFunc(slices.Clone(whole), func(seq uint64) bool { return !slices.Contains(known, seq) })
					if !slices.Equal(left, known) {
						t.Errorf("listed in the order %v", known)
					}
					r, _ := w.verify(structure)
					if r.Intact != len(known) || len(r.Problems) != len(of(len(keys)-1)) || r.Garbage.Segments > 0 {
						t.Errorf("%d intact, %v, garbage %+v", r.Intact, r.Problems, r.Garbage)
					}
					before := w.objects("")
					task, _, _ := w.process()
					if _, err := task.Repair(w.Context(), r, checkpoint.RepairOptions{}); !errors.Is(err, checkpoint.ErrCorrupt) || len(w.objects("")) != len(before) {
						t.Errorf("without being asked: %v", err)
					}
					out, err := task.Repair(w.Context(), r, giveUpList)
					if err != nil || !out.ListGivenUp || len(out.Dropped)+len(out.Left) > 0 || out.RolledBackTo != 0 || out.Collected != (checkpoint.CollectResult{}) {
						t.Fatalf("%+v, %v", out, err)
					}
					for _, o := range before {
						if !w.exists(o.Key) {
							t.Errorf("%s was deleted", o.Key)
						}
					}
					now, err := w.listed()
					if err != nil || !slices.Equal(now, known) {
						t.Errorf("%d checkpoints, %v; want the %d that were known", len(now), err, len(known))
					}
					again, _, _ := w.open(keepAll)
					commit(w, claim(w, again), at(1))
					synctest.Wait()
					w.wantClean(len(known) + 1)
				})
			})
		}
	}
}

// What is said of a checkpoint in the manifest is known, wherever it stood in the list.
func TestGiveUpListKeepsWhatIsSaidInTheManifest(t *testing.T) {
	inWorld(t, func(w *world) {
		keys := w.longList()
		task, _, _ := w.process()
		mustDo(t, second(task.Annotate(w.Context(), checkpoint.Seq(7), checkpoint.Note{Text: "keep it"})))
		for _, key := range keys {
			w.remove(key)
		}
		if _, err := w.repair(giveUpList); err != nil {
			t.Fatal(err)
		}
		c, err := task.Get(w.Context(), checkpoint.Seq(7))
		if err != nil || c.Note.Text != "keep it" || c.Savepoint == "" {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

// Checkpoints that are damaged are dropped with the rest, and so is the current one.
func TestGiveUpListOfADamagedCheckpoint(t *testing.T) {
	inWorld(t, func(w *world) {
		w.longList()
		o, _ := w.ownerWith(keepAll)
		before := commit(w, o, at(5))
		c := commit(w, o, with(6, 100<<10))
		mustDo(t, o.Release(w.Context()), o.Close(w.Context()))
		synctest.Wait()
		w.remove(w.listKeys()[0])
		known, _ := w.listed()
		w.remove(format.SegmentKey(dir, w.manifest(c.Seq).Checkpoint.Content.Segments[0].ID))
		out, err := w.repair(giveUpList)
		if err != nil || !out.ListGivenUp || !slices.Equal(out.Dropped, []uint64{c.Seq}) || out.RolledBackTo != before.Seq {
			t.Errorf("%+v, %v", out, err)
		}
		if now, err := w.listed(); err != nil || !slices.Equal(now, known[1:]) {
			t.Errorf("%d checkpoints, %v; want %d", len(now), err, len(known)-1)
		}
	})
}

// An owner that may live is not fenced unasked.
func TestGiveUpListOfAClaimedTask(t *testing.T) {
	inWorld(t, func(w *world) {
		w.longList()
		o, _ := w.ownerWith(keepAll)
		synctest.Wait()
		w.remove(format.SegmentKey(dir, w.manifest(w.newestSeq()).RetainedAt.Segment))
		if out, err := w.repair(giveUpList); !errors.Is(err, checkpoint.ErrClaimed) || out.ListGivenUp {
			t.Errorf("%+v, %v; want ErrClaimed", out, err)
		}
		commit(w, o, at(1))
		if out, err := w.repair(checkpoint.RepairOptions{GiveUpList: true, Fence: true}); err != nil || !out.ListGivenUp {
			t.Errorf("%+v, %v", out, err)
		}
		if _, err := o.Commit(w.Context(), at(2)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("the owner's commit: %v", err)
		}
	})
}

// A bit that flips on its way here is no damage.
func TestListIsReadTwice(t *testing.T) {
	inWorld(t, func(w *world) {
		keys := w.longList()
		for _, key := range keys {
			task, _, _ := w.process(faultstore.Fault{Kind: faultstore.Corrupt, Verb: "get", Key: key, On: 1})
			if r, err := task.Verify(w.Context(), structure); err != nil || r.Err() != nil {
				t.Errorf("%s: %v, %v", key, r.Err(), err)
			}
		}
	})
}

// A writer has deleted the list of the manifest before its own, which is damaged. What that
// one says without its list is verified, and nothing is given up.
func TestListBeforeADamagedManifestIsGone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.forgeNamed(600, 200, func(uint64) string { return "" })
		keys := w.listKeys()
		damaged, index := format.ManifestKey(dir, 601), keys[len(keys)-1]
		w.write(damaged, []byte("rubbish"))
		for _, key := range keys {
			w.remove(key)
		}
		r, _ := w.verify(structure)
		found := make(map[string]checkpoint.ProblemKind)
		for _, p := range r.Problems {
			found[p.Object] = p.Kind
		}
		if want := map[string]checkpoint.ProblemKind{damaged: checkpoint.Damaged, index: checkpoint.Missing}; !maps.Equal(found, want) {
			t.Errorf("found %v; want %v", found, want)
		}
		if r.Manifest != 600 || r.Intact != 1 {
			t.Errorf("%+v, want the checkpoint of manifest 600", r)
		}
		if out, err := w.repair(checkpoint.RepairOptions{GiveUpList: true, Fence: true}); !errors.Is(err, checkpoint.ErrCorrupt) || out.ListGivenUp {
			t.Errorf("%+v, %v", out, err)
		}
	})
}

// A list that is whole is not given up.
func TestGiveUpNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		keys := w.longList()
		whole, _ := w.listed()
		seq := w.newestSeq()
		if out, err := w.repair(giveUpList); err != nil || out.ListGivenUp || w.newestSeq() != seq {
			t.Errorf("of a whole list: %+v, %v", out, err)
		}
		data := w.read(keys[0])
		w.remove(keys[0])
		r, _ := w.verify(structure)
		w.write(keys[0], data) // somebody brings it back
		task, _, _ := w.process()
		if out, err := task.Repair(w.Context(), r, giveUpList); err != nil || out.ListGivenUp || w.newestSeq() != seq {
			t.Errorf("of one that was brought back: %+v, %v", out, err)
		}
		if now, err := w.listed(); err != nil || !slices.Equal(now, whole) {
			t.Errorf("%d checkpoints, %v", len(now), err)
		}
	})
}

// A checkpoint that is held for a fork is in the list, so it is kept. If it cannot be read,
// the fork must be gone first.
func TestGiveUpListOfASource(t *testing.T) {
	withoutRaceDetector(t)
	for name, damaged := range map[string]bool{"held": false, "held and damaged": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, _ := w.ownerWith(keepAll)
				commit(w, o, with(1, 100<<10)) // 2
				mustDo(t, o.Release(w.Context()), o.Close(w.Context()))
				keys := w.longListByCommits()
				w.fork(source, "try", checkpoint.Seq(2))
				for _, key := range keys[:len(keys)-1] {
					w.remove(key)
				}
				if !damaged {
					if _, err := w.repair(giveUpList); err != nil {
						t.Fatal(err)
					}
					again, _, _ := w.open(lastOne)
					commit(w, claim(w, again), at(1))
					synctest.Wait()
					mustDo(t, w.collectNamed(source))
					w.wantState("try", "1")
					w.wantVerified("try", 1)
					return
				}
				w.remove(format.ManifestKey(dir, 2))
				if out, err := w.repair(giveUpList); !errors.Is(err, checkpoint.ErrHeld) || !strings.Contains(err.Error(), `"try"`) || out.ListGivenUp {
					t.Errorf("%+v, %v; want ErrHeld", out, err)
				}
				fork, _ := w.named("try", keepAll)
				_, _ = fork.Delete(w.Context(), checkpoint.DeleteOptions{}) // its source cannot be amended
				if out, err := w.repair(giveUpList); err != nil || !out.ListGivenUp {
					t.Errorf("%+v, %v", out, err)
				}
				if s, err := w.status(source); err != nil || len(s.Forks) > 0 {
					t.Errorf("%+v, %v", s.Forks, err)
				}
			})
		})
	}
}

// Whichever request fails, and however: a second repair completes the first, and what can be
// known of the list stays.
func TestGiveUpListIsKilledAnywhere(t *testing.T) {
	for _, kind := range []faultstore.Kind{faultstore.FailBefore, faultstore.LoseReply, faultstore.CrashAfter} {
		for k, done := 1, false; !done; k++ {
			inWorld(t, func(w *world) {
				w.forgeNamed(600, 200, func(uint64) string { return "" })
				w.remove(w.listKeys()[1])
				known, _ := w.listed()
				r, _ := w.verify(structure)
				task, _, store := w.open(checkpoint.Options{Backoff: backend.Backoff{Attempts: 4}}, faultstore.Fault{Kind: kind, On: k})
				_, err := task.Repair(w.Context(), r, checkpoint.RepairOptions{GiveUpList: true, Fence: true})
				if done = len(store.Unfired()) > 0; done {
					store.Disarm()
				}
				if done && err != nil {
					t.Fatal(err)
				}
				mustDo(t, second(w.repair(checkpoint.RepairOptions{GiveUpList: true, Fence: true})))
				if now, err := w.listed(); err != nil || !slices.Equal(now, known) {
					t.Errorf("%s, call %d: %d checkpoints, %v; want %d", kind, k, len(now), err, len(known))
				}
			})
			if k > 60 {
				t.Fatal("it does not end")
			}
		}
	}
}
