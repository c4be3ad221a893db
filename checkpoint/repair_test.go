package checkpoint_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// repair verifies and repairs in a process of its own.
func (w *world) repair(opts checkpoint.RepairOptions, faults ...faultstore.Fault) (checkpoint.RepairResult, error) {
	w.Helper()
	task, _, store := w.process()
	r, err := task.Verify(w.Context(), allData)
	if err != nil {
		w.Fatal(err)
	}
	store.Arm(faults...)
	return task.Repair(w.Context(), r, opts)
}

// wantClean fails unless a verification finds this number of checkpoints and no
// problem.
func (w *world) wantClean(intact int) {
	w.Helper()
	r, _ := w.verify(allData)
	if r.Intact != intact || len(r.Problems) > 0 || r.Garbage.Segments+r.InFlight.Segments+r.Unclear.Segments > 0 {
		w.Fatalf("%+v; want %d intact and nothing else", r, intact)
	}
}

func (w *world) newestSeq() uint64 {
	w.Helper()
	_, seq, ok := format.ParseManifestKey(w.objects(manifests)[0].Key)
	if !ok {
		w.Fatal("no manifest")
	}
	return seq
}

var fence = checkpoint.RepairOptions{Fence: true}

// Whatever object is lost or damaged: a repair removes the checkpoints that need it,
// and keeps the others.
func TestRepair(t *testing.T) {
	damages := map[string]func(w *world, key string){
		"lost":    (*world).remove,
		"damaged": func(w *world, key string) { w.write(key, []byte("rubbish")) },
	}
	for n := 1; n < 40; n++ {
		for what, damage := range damages {
			if done := t.Run(fmt.Sprint(what, " ", n), func(t *testing.T) {
				inWorld(t, func(w *world) {
					o := w.library()
					objects := w.objects("")
					if n >= len(objects) {
						return
					}
					damage(w, objects[n].Key)
					damaged := w.unreadable()
					before := len(w.objects(segments))
					out, err := w.repair(fence)
					slices.Sort(out.Dropped)
					slices.Reverse(out.Dropped)
					if err != nil || !slices.Equal(out.Dropped, damaged) && len(damaged) > 0 || len(out.Left) > 0 {
						t.Fatalf("%s %s damages %v; %+v, %v", objects[n].Key, what, damaged, out, err)
					}
					want := slices.DeleteFunc([]uint64{6, 5, 4, 3, 2}, func(seq uint64) bool { return slices.Contains(damaged, seq) })
					if back := slices.Contains(damaged, 6); back != (out.RolledBackTo != 0) || back && out.RolledBackTo != want[0] {
						t.Errorf("went back to %d, want %d", out.RolledBackTo, want[0])
					}
					task, _, _ := w.process()
					list, err := task.List(w.Context())
					if err != nil || len(list) != len(want) {
						t.Fatalf("%d checkpoints, %v; want %v", len(list), err, want)
					}
					for i, c := range list {
						if err := readAll(w.Context(), task, c.Seq); c.Seq != want[i] || err != nil {
							t.Errorf("checkpoint %d, %v; want %v", c.Seq, err, want)
						}
					}
					if n := len(w.objects(segments)); out.Collected.Segments+n > before {
						t.Errorf("%d segments of %d were collected, and %d are there", out.Collected.Segments, before, n)
					}
					fenced := out.RolledBackTo != 0
					if fenced || len(damaged) == 0 { // otherwise the owner must delete what an unreadable checkpoint needed
						w.wantClean(len(want))
					}
					seq := w.newestSeq()
					if status, err := task.Status(w.Context()); err != nil || status.Claimed == fenced {
						t.Errorf("%+v, %v; fenced: %v", status, err, fenced)
					}
					if out, err := w.repair(fence); err != nil || len(out.Dropped) > 0 || w.newestSeq() != seq {
						t.Errorf("second repair: %+v, %v, manifest %d after %d", out, err, w.newestSeq(), seq)
					}
					if _, err := o.Commit(w.Context(), at(9)); fenced != errors.Is(err, checkpoint.ErrFenced) {
						t.Errorf("the owner's commit: %v", err)
					}
					if !fenced {
						synctest.Wait()
						w.wantClean(len(want) + 1)
					}
				})
			}); !done {
				return
			}
		}
	}
}

func TestRepairRollsBack(t *testing.T) {
	inWorld(t, func(w *world) {
		o := w.library()
		c := commit(w, o, with(10, 100<<10))
		synctest.Wait()
		w.remove(format.SegmentKey(dir, w.manifest(c.Seq).Checkpoint.Content.Segments[0].ID))
		out, err := w.repair(fence)
		if err != nil || !slices.Equal(out.Dropped, []uint64{c.Seq}) || out.RolledBackTo != 6 {
			t.Errorf("%+v, %v; want it to go back to 6", out, err)
		}
		task, _, _ := w.process()
		if s, err := task.Status(w.Context()); err != nil || s.Claimed {
			t.Errorf("status %+v, %v; want it to be released", s, err)
		}
		if c, err := task.Latest(w.Context()); err != nil || c.Seq != 6 || c.Offsets["in"] != "9" {
			t.Errorf("the newest is %+v, %v", c, err)
		}
		w.wantClean(5)
	})
}

func TestRepairOfAClaimedTask(t *testing.T) {
	inWorld(t, func(w *world) {
		o := w.library()
		w.remove(format.ManifestKey(dir, 3))
		if out, err := w.repair(checkpoint.RepairOptions{}); err != nil || !slices.Equal(out.Dropped, []uint64{3}) {
			t.Errorf("beside its owner: %+v, %v", out, err)
		}
		commit(w, o, with(9, 100<<10)) // it is not fenced
		w.remove(format.SegmentKey(dir, w.manifest(8).Checkpoint.Content.Segments[0].ID))
		if out, err := w.repair(checkpoint.RepairOptions{}); !errors.Is(err, checkpoint.ErrClaimed) || len(out.Dropped) > 0 || w.newestSeq() != 8 {
			t.Errorf("with the current checkpoint damaged: %+v, %v; want ErrClaimed", out, err)
		}
	})
}

// A repair does nothing that may be unsafe.
func TestRepairRefuses(t *testing.T) {
	t.Run("all", func(t *testing.T) {
		inWorld(t, func(w *world) {
			o, _ := w.owner()
			c := commit(w, o, with(1, 100<<10))
			w.remove(w.objects(segments)[0].Key)
			before := w.objects("")
			out, err := w.repair(fence)
			if !errors.Is(err, checkpoint.ErrCorrupt) || len(out.Dropped) > 0 || !slices.Equal(out.Left, []uint64{c.Seq}) {
				t.Errorf("%+v, %v; want ErrCorrupt", out, err)
			}
			if !slices.Equal(w.objects(""), before) {
				t.Error("something has changed")
			}
		})
	})
	t.Run("newest manifest", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.library()
			key := format.ManifestKey(dir, 6)
			w.write(key, []byte("rubbish"))
			before := w.objects("")
			if out, err := w.repair(fence); !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "cannot be repaired") {
				t.Errorf("%+v, %v; want ErrCorrupt", out, err)
			}
			if !slices.Equal(w.objects(""), before) {
				t.Error("something has changed")
			}
		})
	})
	t.Run("list of checkpoints", func(t *testing.T) {
		inWorld(t, func(w *world) {
			o, _ := w.owner()
			for n := range 150 {
				commit(w, o, checkpoint.Snapshot{Savepoint: fmt.Sprintf("%0127d.", n)})
			}
			synctest.Wait()
			w.remove(format.SegmentKey(dir, w.manifest(151).RetainedAt.Segment))
			before := w.objects("")
			if out, err := w.repair(fence); !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), "cannot be repaired") {
				t.Errorf("%+v, %v; want ErrCorrupt", out, err)
			}
			if !slices.Equal(w.objects(""), before) {
				t.Error("something has changed")
			}
		})
	})
}

// A checkpoint that only a claim still contains is kept, and removed if it cannot be
// read any more.
func TestRepairBehindAClaim(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		o, _ := w.owner()
		w.remove(format.ManifestKey(dir, 6))
		out, err := w.repair(fence)
		if err != nil || len(out.Dropped) > 0 || !slices.Equal(out.Left, []uint64{6}) || w.newestSeq() != 7 {
			t.Errorf("%+v, %v; want 6 to be kept", out, err)
		}
		commit(w, o, at(10)) // it was not fenced
		if out, err = w.repair(fence); err != nil || !slices.Equal(out.Dropped, []uint64{6}) || out.RolledBackTo != 0 {
			t.Errorf("%+v, %v; want 6 to be dropped", out, err)
		}
		w.wantClean(5)
	})
}

// An owner remembers what is in its last manifest, and goes on from it.
func TestRepairBehindALiveOwner(t *testing.T) {
	inWorld(t, func(w *world) {
		o := w.library()
		w.write(format.ManifestKey(dir, 6), []byte("rubbish"))
		if _, err := w.repair(fence); !errors.Is(err, checkpoint.ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
		commit(w, o, at(10))
		synctest.Wait()
		if out, err := w.repair(fence); err != nil || !slices.Equal(out.Dropped, []uint64{6}) || out.RolledBackTo != 0 {
			t.Errorf("after the next commit: %+v, %v", out, err)
		}
		w.wantClean(5)
	})
}

// The list of the kept checkpoints may be too large for a manifest.
func TestRepairOfALongList(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		for n := range 150 {
			commit(w, o, checkpoint.Snapshot{Savepoint: fmt.Sprintf("%0127d.", n)})
		}
		synctest.Wait()
		w.remove(format.ManifestKey(dir, 77))
		out, err := w.repair(fence)
		if err != nil || !slices.Equal(out.Dropped, []uint64{77}) {
			t.Errorf("%+v, %v", out, err)
		}
		w.wantClean(149)
	})
}

// What was committed after the report was made is kept.
func TestRepairIsOvertaken(t *testing.T) {
	inWorld(t, func(w *world) {
		o := w.library()
		w.remove(format.ManifestKey(dir, 3))
		task, _, _ := w.process()
		r, err := task.Verify(w.Context(), structure)
		if err != nil {
			t.Fatal(err)
		}
		commit(w, o, at(10))
		if out, err := task.Repair(w.Context(), r, fence); err != nil || !slices.Equal(out.Dropped, []uint64{3}) {
			t.Errorf("%+v, %v", out, err)
		}
		w.wantClean(5)
		heir, _ := w.owner()
		commit(w, heir, at(11))
		seq := w.newestSeq()
		if out, err := task.Repair(w.Context(), r, fence); err != nil || len(out.Dropped) > 0 || w.newestSeq() != seq {
			t.Errorf("by an old report: %+v, %v", out, err)
		}
	})
}

// Between the verification and the repair, somebody deletes everything.
func TestRepairOfNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		task := w.saved(2)
		w.remove(w.objects(segments)[0].Key)
		r, err := task.Verify(w.Context(), checkpoint.VerifyOptions{})
		if err != nil || r.Err() == nil {
			t.Fatalf("%v, %v", r, err)
		}
		for _, o := range w.objects("") {
			w.remove(o.Key)
		}
		if done, err := task.Repair(w.Context(), r, checkpoint.RepairOptions{}); err != nil || len(done.Dropped) > 0 {
			t.Errorf("%+v, %v; want nothing", done, err)
		}
		w.wantObjects("", 0)
	})
}

// Whichever request fails, and however: a second repair completes the first.
func TestRepairBesideFaults(t *testing.T) {
	for _, kind := range []faultstore.Kind{faultstore.FailBefore, faultstore.LoseReply, faultstore.CrashFirst, faultstore.CrashAfter} {
		for k := 1; ; k++ {
			done := false
			inWorld(t, func(w *world) {
				w.library()
				w.remove(format.ManifestKey(dir, 3))
				w.remove(format.ManifestKey(dir, 5))
				task, _, store := w.process()
				r, err := task.Verify(w.Context(), allData)
				if err != nil {
					t.Fatal(err)
				}
				before := store.Calls()
				faulty := faultstore.Fault{Kind: kind, On: k}
				store.Arm(faulty)
				out, err := task.Repair(w.Context(), r, fence)
				if store.Calls()-before < k {
					done = true
					store.Disarm()
				}
				crashed := kind == faultstore.CrashFirst || kind == faultstore.CrashAfter
				if (err != nil) != crashed && !done {
					t.Errorf("%s, call %d: %+v, %v", kind, k, out, err)
				}
				if _, err := w.repair(fence); err != nil {
					t.Errorf("%s, call %d: the next one: %v", kind, k, err)
				}
				w.wantClean(3)
			})
			if done {
				if k < 8 {
					t.Errorf("a repair took %d requests", k-1)
				}
				break
			}
		}
	}
	inWorld(t, func(w *world) {
		w.library()
		w.remove(format.ManifestKey(dir, 3))
		refused := faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", Err: backend.ErrPermission}
		if out, err := w.repair(fence, refused); !errors.Is(err, backend.ErrPermission) || len(out.Dropped) > 0 || len(out.Left) != 1 {
			t.Errorf("%+v, %v; want ErrPermission", out, err)
		}
	})
}
