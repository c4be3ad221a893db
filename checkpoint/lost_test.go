package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// lose deletes the manifests from number seq on, as anyone with access to the bucket
// could.
func (w *world) lose(seq uint64) {
	w.Helper()
	last := w.newestSeq()
	for ; seq <= last; seq++ {
		w.remove(format.ManifestKey(dir, seq))
	}
}

// segmentsOf returns the keys of all segments of an epoch.
func (w *world) segmentsOf(epoch uint64) []string {
	w.Helper()
	var keys []string
	for _, o := range w.objects(segments) {
		if id, ok := format.ParseSegmentKey(dir, o.Key); ok && id.Epoch == epoch {
			keys = append(keys, o.Key)
		}
	}
	return keys
}

func (w *world) wantAll(keys []string, there bool) {
	w.Helper()
	for _, key := range keys {
		if w.exists(key) != there {
			w.Errorf("%s: exists is %v", key, !there)
		}
	}
}

// logged opens the task with a log.
func (w *world) logged(opts checkpoint.Options) (*checkpoint.Task, *bytes.Buffer) {
	w.Helper()
	log := new(bytes.Buffer)
	opts.Logger = slog.New(slog.NewTextHandler(log, nil))
	job := newJob(w, w.bucket.Open(), opts)
	task, err := job.Task("orders/7")
	if err != nil {
		w.Fatal(err)
	}
	return task, log
}

var keepThree = checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: 3}}

// lostOwner makes a task whose newest manifests are lost: all those of its second
// owner. It returns the segments of that owner.
func (w *world) lostOwner() []string {
	w.Helper()
	first, _ := w.ownerWith(keepThree) // 1
	commit(w, first, with(1, 100<<10))
	commit(w, first, with(2, 100<<10))
	synctest.Wait()
	second, _ := w.ownerWith(keepThree) // 4
	commit(w, second, with(3, 100<<10))
	synctest.Wait()
	lost := w.segmentsOf(2)
	if len(lost) != 2 {
		w.Fatalf("the second owner has the segments %v", lost)
	}
	w.lose(4)
	w.wantHistory("2 1")
	return lost
}

// wantLost checks that a verification and a collection report lost manifests.
func (w *world) wantLost(segments int) {
	w.Helper()
	task, _, _ := w.process()
	r, err := task.Verify(w.Context(), checkpoint.VerifyOptions{})
	if err != nil {
		w.Fatal(err)
	}
	err = r.Err()
	if lost := segments > 0; r.Lost.Segments != segments || errors.Is(err, checkpoint.ErrLost) != lost || errors.Is(err, checkpoint.ErrCorrupt) != lost {
		w.Errorf("a verification finds %+v lost, want %d segments: %v", r.Lost, segments, err)
	}
	if r.Intact != r.Checkpoints || r.Intact == 0 {
		w.Errorf("of %d checkpoints %d are intact", r.Checkpoints, r.Intact)
	}
	if got, log := w.collectLogged(checkpoint.CollectOptions{}); got.Segments != 0 || strings.Contains(log, "manifests were lost") != (segments > 0) ||
		segments > 0 && !strings.Contains(log, fmt.Sprintf("segments=%d", segments)) {
		w.Errorf("collected %+v and logged %q, want %d segments left as lost", got, log, segments)
	}
}

// collectLogged collects, and returns what was logged.
func (w *world) collectLogged(opts checkpoint.CollectOptions) (checkpoint.CollectResult, string) {
	w.Helper()
	task, log := w.logged(checkpoint.Options{})
	got, err := task.Collect(w.Context(), opts)
	if err != nil {
		w.Fatal(err)
	}
	return got, log.String()
}

// What an owner left whose manifests were deleted proves the loss, and later writers
// do not collect it.
func TestLostManifestsOfAnOwner(t *testing.T) {
	inWorld(t, func(w *world) {
		lost := w.lostOwner()
		w.wantLost(2)
		w.wantAll(lost, true)

		// The next owner has the same epoch, and goes on from the newest manifest
		// that is left.
		task, log := w.logged(keepThree)
		third := claim(w, task)
		if third.Epoch() != 2 {
			t.Fatalf("epoch %d", third.Epoch())
		}
		commit(w, third, with(4, 100<<10))
		synctest.Wait()
		w.wantAll(lost, true)
		if n := third.LostSegments(); n != 2 || !strings.Contains(log.String(), "manifests were lost") {
			t.Errorf("the owner has counted %d segments, and logged %q", n, log)
		}
		w.wantLost(2)
		commit(w, third, with(5, 100<<10))
		synctest.Wait()

		// The owner after it does the same.
		fourth, _ := w.ownerWith(keepThree)
		commit(w, fourth, with(6, 100<<10))
		synctest.Wait()
		if n := fourth.LostSegments(); n != 2 {
			t.Errorf("the owner after it has counted %d segments", n)
		}
		w.wantLost(2)
		w.wantAll(lost, true)
		w.wantReadable()

		// They are deleted when someone asks for it, which does not fence the owner.
		if got, log := w.collectLogged(checkpoint.CollectOptions{Lost: true}); got.Segments != 2 || log != "" {
			t.Errorf("collected %+v, %s", got, log)
		}
		w.wantAll(lost, false)
		commit(w, fourth, with(7, 100<<10))
		w.wantLost(0)
		w.wantReadable()
	})
}

// Giving up segments of an epoch later than the newest manifest's makes a manifest of
// an even later epoch, so nobody can name these segments any more.
func TestGiveUpWhatIsLost(t *testing.T) {
	inWorld(t, func(w *world) {
		lost := w.lostOwner()
		stale := w.segment(7, 0xee, 0) // of a save that was based on what is lost
		task, _, store := w.process()
		if got, err := task.Collect(w.Context(), checkpoint.CollectOptions{Lost: true, DryRun: true}); err != nil || got.Segments != 3 {
			t.Errorf("a dry run: %+v, %v", got, err)
		}
		_, err := task.Collect(w.Context(), checkpoint.CollectOptions{Lost: true})
		if !errors.Is(err, checkpoint.ErrClaimed) {
			t.Errorf("%v, want ErrClaimed", err)
		}
		w.wantAll(append(lost, stale), true)
		before := store.Calls()
		got, err := task.Collect(w.Context(), checkpoint.CollectOptions{Lost: true, Fence: true})
		if err != nil || got.Segments != 3 {
			t.Errorf("%+v, %v after %d requests", got, err, store.Calls()-before)
		}
		w.wantAll(append(lost, stale), false)
		s, err := task.Status(w.Context())
		if err != nil || s.Epoch != 8 || s.Claimed {
			t.Errorf("%+v, %v; want it released, in epoch 8", s, err)
		}
		w.wantLost(0)
		w.wantHistory("2 1")
		w.wantReadable()
		o, _ := w.owner()
		commit(w, o, with(3, 100<<10))
		w.wantHistory("3 2 1")
	})
}

// The segments of the newest save may be those of one that was killed. The segments
// of earlier ones prove that manifests were lost.
func TestLostManifestsOfSaves(t *testing.T) {
	inWorld(t, func(w *world) {
		w.saved(3)
		second, third := w.segmentsOf(2), w.segmentsOf(3)
		w.lose(3)
		w.wantLost(0)
		w.wantAll(third, true)
		w.lose(2)
		w.wantLost(1)
		w.wantAll(append(second, third...), true)
	})
}

// What killed saves left is garbage once another writer has committed, as before.
func TestKilledSavesAreNotLostManifests(t *testing.T) {
	inWorld(t, func(w *world) {
		for n := range 3 {
			task, _, _ := w.open(keepThree, faultstore.Fault{Kind: faultstore.CrashAfter, Verb: "put", On: 2})
			if _, err := task.Save(w.Context(), with(n, 150<<10), checkpoint.SaveOptions{}); !errors.Is(err, faultstore.ErrCrashed) {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Hour)
			if n == 0 {
				continue // before there was any manifest, twice
			}
			if n == 1 {
				w.saved(1)
			}
			w.wantHistory("1")
		}
		w.wantObjects(segments, 7)
		o, _ := w.ownerWith(keepThree)
		commit(w, o, with(9, 20<<10))
		synctest.Wait()
		w.wantObjects(segments, 2)
		if n := o.LostSegments(); n != 0 {
			t.Errorf("%d segments count as lost", n)
		}
		w.wantLost(0)
	})
}

// The store does not show whether an owner was killed during a commit, or its last
// manifest was lost. What it left is not collected while it owns the task;
// verification says since when it exists; and whoever collects it later logs that.
func TestLostManifestOfACommit(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepThree)
		commit(w, o, with(1, 100<<10))
		synctest.Wait()
		commit(w, o, with(2, 100<<10))
		synctest.Wait()
		w.lose(3)
		made := time.Now()
		time.Sleep(10 * time.Hour)
		task, _, _ := w.process()
		r, err := task.Verify(w.Context(), checkpoint.VerifyOptions{})
		if err != nil || r.Err() != nil || r.InFlight.Segments != 2 || !r.InFlightSince.Equal(made) {
			t.Errorf("%+v, %v; want two segments in flight since %v", r, err, made)
		}
		if got, log := w.collectLogged(checkpoint.CollectOptions{}); got.Segments != 0 || !strings.Contains(log, "may yet name") || !strings.Contains(log, "segments=2") {
			t.Errorf("collected %+v and logged %q, want two left", got, log)
		}
		heirs, log := w.logged(keepThree)
		commit(w, claim(w, heirs), with(3, 100<<10))
		synctest.Wait()
		if text := log.String(); !strings.Contains(text, "level=INFO") || !strings.Contains(text, "segments=2") {
			t.Errorf("it has logged %q", text)
		}
		w.wantLost(0)
	})
}

// Segments that have been in flight for less than the fence window are not reported.
func TestInFlightForAMoment(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepThree)
		commit(w, o, with(1, 100<<10))
		synctest.Wait()
		w.segment(2, 0xee, 0)
		time.Sleep(checkpoint.FenceWindow)
		if got, log := w.collectLogged(checkpoint.CollectOptions{}); got.Segments != 0 || log != "" {
			t.Errorf("collected %+v, and logged %q", got, log)
		}
		time.Sleep(time.Second)
		if got, log := w.collectLogged(checkpoint.CollectOptions{}); got.Segments != 0 || !strings.Contains(log, "may yet name") || !strings.Contains(log, "segments=1") {
			t.Errorf("collected %+v, and logged %q", got, log)
		}
	})
}

// If no manifest is left, the task is not taken for a new one.
func TestAllManifestsLost(t *testing.T) {
	for name, prepare := range map[string]func(*world){
		"of one owner": func(w *world) {
			o, _ := w.ownerWith(keepThree)
			commit(w, o, with(1, 100<<10))
			synctest.Wait()
		},
		"of two owners": func(w *world) { w.lostOwner() },
		"of saves":      func(w *world) { w.saved(2) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				prepare(w)
				w.lose(1)
				left := w.objects(segments)
				task, job, store := w.process()
				want := func(what string, err error) {
					t.Helper()
					if !errors.Is(err, checkpoint.ErrLost) || !errors.Is(err, checkpoint.ErrCorrupt) || errors.Is(err, checkpoint.ErrNoCheckpoint) {
						t.Errorf("%s: %v, want ErrLost", what, err)
						return
					}
					for _, part := range []string{`task "orders/7"`, "segment", "gc --lost", "another name", "versions"} {
						if !strings.Contains(err.Error(), part) {
							t.Errorf("%s: %v; it does not say %q", what, err, part)
						}
					}
				}
				want("claim", second(task.Claim(w.Context(), checkpoint.ClaimOptions{})))
				want("save", second(task.Save(w.Context(), with(9, 100<<10), checkpoint.SaveOptions{})))
				want("status", second(task.Status(w.Context())))
				want("newest", second(task.Latest(w.Context())))
				want("verify", second(task.Verify(w.Context(), checkpoint.VerifyOptions{})))
				want("collect", second(task.Collect(w.Context(), checkpoint.CollectOptions{})))
				if got := tasksOf(w, job); len(got) != 1 || got[0] != "orders/7" {
					t.Errorf("the tasks are %q", got)
				}
				w.wantObjects(manifests, 0)
				w.wantObjects(segments, len(left))

				before := store.Calls()
				got, err := task.Collect(w.Context(), checkpoint.CollectOptions{Lost: true})
				if err != nil || got.Segments != len(left) {
					t.Errorf("given up: %+v, %v, %d requests", got, err, store.Calls()-before)
				}
				w.wantObjects(segments, 0)
				o, _ := w.ownerWith(keepThree)
				if _, err := o.Checkpoint(w.Context()); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
					t.Errorf("a new life begins with %v", err)
				}
				commit(w, o, with(1, 100<<10))
				w.wantHistory("1")
				w.wantLost(0)
			})
		})
	}
}

// A first save that was killed leaves segments, and hinders nobody.
func TestKilledFirstSaveHindersNobody(t *testing.T) {
	for name, use := range map[string]func(*world, *checkpoint.Task) error{
		"claim": func(w *world, t *checkpoint.Task) error {
			o, err := t.Claim(w.Context(), checkpoint.ClaimOptions{})
			if err == nil {
				commit(w, o, with(7, 100<<10))
				w.Cleanup(func() { _ = o.Close(context.Background()) })
			}
			return err
		},
		"save": func(w *world, t *checkpoint.Task) error {
			return second(t.Save(w.Context(), with(7, 100<<10), checkpoint.SaveOptions{}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				for n := range 2 {
					killed, _, _ := w.open(keepThree, faultstore.Fault{Kind: faultstore.CrashAfter, Verb: "put", On: 2})
					if _, err := killed.Save(w.Context(), with(n, 150<<10), checkpoint.SaveOptions{}); !errors.Is(err, faultstore.ErrCrashed) {
						t.Fatal(err)
					}
					time.Sleep(30 * time.Hour)
				}
				task, _, _ := w.open(keepThree)
				if s, err := task.Status(w.Context()); err != nil || s.Manifest != 0 {
					t.Errorf("status: %+v, %v", s, err)
				}
				if err := use(w, task); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				w.wantHistory("7")
				w.collect(checkpoint.CollectOptions{})
				w.wantObjects(segments, 2)
			})
		})
	}
}

// A first claim that comes just after another one sees the segments of that one, and
// does not report lost manifests.
func TestFirstClaimsAtOnceLoseNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		lists := 0
		task := w.hookedTask(keepThree, func(verb, _ string) {
			if lists++; verb == "list" && lists == 2 { // between the manifests and the segments
				o, _ := w.ownerWith(keepThree)
				commit(w, o, with(1, 100<<10))
				synctest.Wait()
			}
		})
		if _, err := task.Save(w.Context(), with(9, 100<<10), checkpoint.SaveOptions{}); !errors.Is(err, checkpoint.ErrConflict) {
			t.Errorf("save: %v, want ErrConflict", err)
		}
		w.lose(1)
		for _, o := range w.objects(segments) {
			w.remove(o.Key)
		}
		lists = 0
		o := claim(w, task)
		if o.Epoch() != 2 {
			t.Errorf("epoch %d, want 2, after the other", o.Epoch())
		}
	})
}

// A claim that is made after a collector or a verifier has read the newest manifest,
// and before it lists, does not prove that manifests were lost.
func TestNoFalseProofBesideAClaim(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepThree)
		commit(w, o, with(1, 100<<10))
		synctest.Wait()
		log := new(bytes.Buffer)
		for name, use := range map[string]func(*checkpoint.Task) (int, error){
			"collect": func(t *checkpoint.Task) (int, error) {
				_, err := t.Collect(w.Context(), checkpoint.CollectOptions{})
				return strings.Count(log.String(), "manifests were lost"), err
			},
			"verify": func(t *checkpoint.Task) (int, error) {
				r, err := t.Verify(w.Context(), checkpoint.VerifyOptions{})
				if err != nil {
					return 0, err
				}
				return r.Lost.Segments, r.Err()
			},
		} {
			lists := 0
			log.Reset()
			opts := keepAll
			opts.Logger = slog.New(slog.NewTextHandler(log, nil))
			task := w.hookedTask(opts, func(verb, _ string) {
				if verb != "list" {
					return
				}
				if lists++; lists == 2 {
					for n := range 2 { // two more epochs, each with segments of its own
						heir, _ := w.ownerWith(keepAll)
						commit(w, heir, with(len(w.objects(manifests))+n, 100<<10))
						synctest.Wait()
					}
				}
			})
			if lost, err := use(task); lost != 0 || err != nil {
				t.Errorf("%s: %d segments count as lost, %v", name, lost, err)
			}
		}
	})
}

// A rollback uploads its list before its claim. If it is killed in between, that does
// not prove a loss.
func TestKilledRollbackProvesNothing(t *testing.T) {
	for name, use := range map[string]func(*world, *checkpoint.Task) error{
		"rollback": func(w *world, t *checkpoint.Task) error {
			return second(t.Rollback(w.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{Fence: true}))
		},
		"claim at": func(w *world, t *checkpoint.Task) error {
			return second(t.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(2)}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				owner, _ := w.ownerWith(keepAll)
				w.fullList(owner)
				task, _, store := w.open(keepAll, faultstore.Fault{Kind: faultstore.CrashFirst, Verb: "create", On: 1})
				if err := use(w, task); !errors.Is(err, faultstore.ErrCrashed) || len(store.Unfired()) > 0 {
					t.Fatal(err)
				}
				w.wantObjects(segments, 2)
				w.wantLost(0)
				o, _ := w.ownerWith(keepAll)
				commit(w, o, at(1))
				synctest.Wait()
				w.wantObjects(segments, 2) // the list of that commit: a piece, and the index
				w.wantLost(0)
			})
		})
	}
}

// Even if the only manifest that a collector needs is a claim that repeats a
// checkpoint, it is known who committed that checkpoint.
func TestLostManifestsBesideAClaim(t *testing.T) {
	inWorld(t, func(w *world) {
		lost := w.lostOwner() // of epoch 2
		task, _, _ := w.open(keepThree)
		if _, err := task.Save(w.Context(), at(3), checkpoint.SaveOptions{Fence: true}); err != nil { // of epoch 2, without a segment
			t.Fatal(err)
		}
		w.ownerWith(keepThree) // of epoch 3
		w.wantLost(2)
		w.wantAll(lost, true)
		w.remove(format.ManifestKey(dir, 4)) // the claim repeats it
		if _, err := task.Collect(w.Context(), checkpoint.CollectOptions{}); err != nil {
			t.Errorf("without the manifest of the save: %v", err)
		}
	})
}

// A segment whose epoch no manifest can have is not one of ours.
func TestSegmentOfNoEpoch(t *testing.T) {
	inWorld(t, func(w *world) {
		key := format.SegmentPrefix(dir) + "8000000000000000-00000000000000ee-00000000"
		w.write(key, []byte("x"))
		w.saved(1)
		w.wantLost(0)
		task, _, _ := w.process()
		r, err := task.Verify(w.Context(), checkpoint.VerifyOptions{})
		if err != nil || len(r.OtherObjects) != 1 || r.OtherObjects[0] != key {
			t.Errorf("%+v, %v", r, err)
		}
		if got := w.collect(checkpoint.CollectOptions{Lost: true}); got != (checkpoint.CollectResult{}) {
			t.Errorf("collected %+v", got)
		}
		w.segment(1<<63-1, 0xee, 0)
		if _, err := task.Collect(w.Context(), checkpoint.CollectOptions{Lost: true}); err == nil || errors.Is(err, backend.ErrNotExist) {
			t.Errorf("after the last epoch there is another: %v", err)
		}
	})
}
