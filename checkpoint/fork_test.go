package checkpoint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// named opens another task of the job in a process of its own.
func (w *world) named(name string, opts checkpoint.Options, faults ...faultstore.Fault) (*checkpoint.Task, *faultstore.Store) {
	w.Helper()
	_, job, store := w.open(opts, faults...)
	task, err := job.Task(name)
	if err != nil {
		w.Fatal(err)
	}
	return task, store
}

// wantState reads all data of a task's checkpoints, whose offsets are to be these, the
// newest first.
func (w *world) wantState(name, want string) {
	w.Helper()
	task, _ := w.named(name, checkpoint.Options{})
	list, err := task.List(w.Context())
	if err != nil && !errors.Is(err, checkpoint.ErrNoCheckpoint) {
		w.Fatal(err)
	}
	var offsets []string
	for _, c := range list {
		offsets = append(offsets, c.Offsets["in"])
		fsys, err := c.FS(w.Context())
		if err != nil {
			w.Fatal(err)
		}
		data, err := fs.ReadFile(fsys, "s")
		if err != nil || int64(len(data)) != c.Bytes || !strings.HasPrefix(string(data), fmt.Sprintf("%07s,", c.Offsets["in"])) {
			w.Errorf("%s: checkpoint %d of offset %s: %.20q, %v", name, c.Seq, c.Offsets["in"], data, err)
		}
	}
	if got := strings.Join(offsets, " "); got != want {
		w.Errorf("%s has checkpoints of offsets %s, want %s", name, got, want)
	}
}

// wantVerified verifies all data of a task.
func (w *world) wantVerified(name string, intact int) {
	w.Helper()
	task, _ := w.named(name, checkpoint.Options{})
	r, err := task.Verify(w.Context(), checkpoint.VerifyOptions{Data: true})
	if err != nil || r.Err() != nil || r.Intact != intact {
		w.Errorf("%s: %+v, %v; want %d intact", name, r, err, intact)
	}
}

// bytesIn returns how large the segments of a task are together.
func (w *world) bytesIn(name string) (n int64) {
	dir, err := format.EscapeTask(name)
	if err != nil {
		w.Fatal(err)
	}
	for _, o := range w.objects(dir + segments) {
		n += o.Size
	}
	return n
}

func (w *world) fork(from, to string, at checkpoint.Ref) uint64 {
	w.Helper()
	task, _ := w.named(from, checkpoint.Options{})
	seq, err := task.Fork(w.Context(), to, checkpoint.ForkOptions{At: at})
	if err != nil {
		w.Fatal(err)
	}
	return seq
}

func (w *world) claimNamed(name string, opts checkpoint.Options) *checkpoint.Owner {
	w.Helper()
	task, _ := w.named(name, opts)
	return claim(w, task)
}

func (w *world) collectNamed(name string) error {
	w.Helper()
	task, _ := w.named(name, checkpoint.Options{})
	_, err := task.Collect(w.Context(), checkpoint.CollectOptions{})
	return err
}

const source = "orders/7" // the task that is forked

// A fork shares the data of its source, which holds it for as long as the fork needs it,
// whatever its own policy says.
func TestFork(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10)) // 2
		commit(w, o, with(2, 100<<10)) // 3
		synctest.Wait()
		task, store := w.named(source, checkpoint.Options{})
		before, stored := store.Calls(), len(w.objects(segments))
		seq, err := task.Fork(w.Context(), "try", checkpoint.ForkOptions{})
		if err != nil || seq != 1 {
			t.Fatalf("%d, %v", seq, err)
		}
		if n := store.Calls() - before; n > 8 || len(w.objects(segments)) != stored {
			t.Errorf("%d requests, %d segments more; want at most 8, and none", n, len(w.objects(segments))-stored)
		}
		w.wantState("try", "2")

		for n := 3; n < 6; n++ {
			commit(w, o, with(n, 100<<10))
		}
		mustDo(t, w.collectNamed(source))
		w.wantState(source, "5 2")
		w.wantState("try", "2")
		w.wantVerified(source, 2)
		w.wantVerified("try", 1)

		// The fork goes on: what it commits shares its source's data.
		f := w.claimNamed("try", keepAll)
		c, err := f.Resume(w.Context(), t.TempDir())
		if err != nil || c.Offsets["in"] != "2" {
			t.Fatalf("%+v, %v", c, err)
		}
		next := with(2, 100<<10)
		next.Labels = map[string]string{"fork": "yes"}
		if c := commit(w, f, next); c.NewBytes > 20<<10 {
			t.Errorf("%d bytes were stored anew", c.NewBytes)
		}
		w.wantState("try", "2 2")
		w.wantVerified("try", 2)
		mustDo(t, w.collectNamed("try"), w.collectNamed(source))
		w.wantState("try", "2 2")

		// Once no checkpoint of the fork needs it, the source lets it go.
		next = with(7, 100<<10)
		next.State = next.State.Full()
		commit(w, f, next)
		mustDo(t, w.collectNamed(source))
		w.wantState(source, "5 2")
		fork, _ := w.named("try", checkpoint.Options{})
		mustDo(t, second(fork.Prune(w.Context(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{})))
		mustDo(t, w.collectNamed(source))
		commit(w, o, with(6, 100<<10))
		synctest.Wait()
		mustDo(t, w.collectNamed(source), w.collectNamed("try"))
		w.wantState(source, "6")
		w.wantState("try", "7")
		for _, name := range []string{source, "try"} {
			w.wantVerified(name, 1)
			if n := w.bytesIn(name); n > 120<<10 {
				t.Errorf("%s has %d bytes in segments; want those of one checkpoint", name, n)
			}
		}
	})
}

// A checkpoint whose content lies in a segment is forked like any other, and so is one
// whose data is in its manifest.
func TestForkOfAnyState(t *testing.T) {
	large := with(3, 100<<10)
	large.Labels = map[string]string{}
	for n := range 2000 {
		large.Labels[fmt.Sprint(n)] = "a label of some length"
	}
	for name, s := range map[string]checkpoint.Snapshot{"small": with(3, 2000), "large": large} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, _ := w.ownerWith(lastOne)
				commit(w, o, s)
				commit(w, o, with(4, 100<<10)) // dropped when it is forked: the name is what holds
				task, _ := w.named(source, checkpoint.Options{})
				if _, err := task.Fork(w.Context(), "try", checkpoint.ForkOptions{At: checkpoint.Seq(2)}); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
					t.Errorf("of what is dropped: %v", err)
				}
				s.State = with(3, 100<<10).State
				if name == "small" {
					s.State = with(3, 2000).State
				}
				s.Savepoint = "x"
				commit(w, o, s) // 4
				commit(w, o, with(5, 100<<10))
				_, store := w.named(source, checkpoint.Options{})
				calls := store.Calls()
				w.fork(source, "try", checkpoint.Savepoint("x"))
				if n := store.Calls() - calls; n > 8 {
					t.Errorf("%d requests", n)
				}
				w.wantState("try", "3")
				mustDo(t, second(task.RemoveSavepoint(w.Context(), "x")))
				commit(w, o, with(6, 100<<10))
				mustDo(t, w.collectNamed(source), w.collectNamed("try"))
				w.wantState("try", "3")
				w.wantVerified("try", 1)
				f := w.claimNamed("try", lastOne)
				commit(w, f, with(7, 100<<10))
				w.wantState("try", "7")
			})
		})
	}
}

// A fork of a fork is held by that one, whose own source goes on holding what both need.
func TestForkOfAFork(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		w.fork(source, "b", checkpoint.Ref{})
		b := w.claimNamed("b", lastOne)
		w.fork("b", "c", checkpoint.Ref{})
		full := with(2, 100<<10)
		full.State = full.State.Full()
		commit(w, b, full) // b itself needs nothing of its source any more
		commit(w, o, with(3, 100<<10))
		for range 2 {
			mustDo(t, w.collectNamed(source), w.collectNamed("b"), w.collectNamed("c"))
			commit(w, o, with(4, 100<<10))
		}
		w.wantState("c", "1")
		w.wantState("b", "2 1")
		w.wantVerified("c", 1)

		// Nothing is deleted that another one needs.
		for name, by := range map[string]string{source: `"b" (checkpoint 2)`, "b": `"c" (checkpoint 1)`} {
			task, _ := w.named(name, checkpoint.Options{})
			_, err := task.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true})
			if !errors.Is(err, checkpoint.ErrHeld) || !strings.Contains(err.Error(), by) {
				t.Errorf("%s is deleted: %v; want ErrHeld, %s", name, err, by)
			}
		}
		for name, held := range map[string]string{"c": "b", "b": source} {
			if s, err := w.status(held); err != nil || len(s.Forks) != 1 || s.Forks[0].Task != name {
				t.Errorf("%s: %+v, %v; want it held for %s", held, s, err, name)
			}
		}
		for _, name := range []string{"c", "b", source} {
			task, _ := w.named(name, checkpoint.Options{})
			if _, err := task.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true}); err != nil {
				t.Errorf("%s is deleted: %v", name, err)
			}
			if s, err := w.status("b"); err != nil || len(s.Forks) > 0 {
				t.Errorf("%+v, %v; want no fork", s, err)
			}
		}
		w.wantObjects(segments, 0)
	})
}

func TestForksThatAreRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _ := w.named(source, checkpoint.Options{})
		fork := func(name string, at checkpoint.Ref) error {
			return second(task.Fork(w.Context(), name, checkpoint.ForkOptions{At: at}))
		}
		if err := fork("try", checkpoint.Ref{}); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
			t.Errorf("of a task that does not exist: %v", err)
		}
		o, _ := w.owner()
		commit(w, o, with(1, 100<<10))
		w.claimNamed("there", checkpoint.Options{})
		before := len(w.objects(""))
		for name, c := range map[string]struct {
			to   string
			at   checkpoint.Ref
			want error
		}{
			"into itself":             {source, checkpoint.Ref{}, backend.ErrInvalid},
			"without a name":          {"", checkpoint.Ref{}, backend.ErrInvalid},
			"of no checkpoint":        {"try", checkpoint.Seq(9), checkpoint.ErrNoCheckpoint},
			"into a task that exists": {"there", checkpoint.Ref{}, checkpoint.ErrConflict},
		} {
			if err := fork(c.to, c.at); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := len(w.objects("")); n != before {
			t.Errorf("%d objects more", n-before)
		}
		for n := 0; ; n++ {
			err := fork(fmt.Sprintf("experiments/with-a-name-of-some-length/%d", n), checkpoint.Ref{})
			if errors.Is(err, checkpoint.ErrConflict) && n > 15 && strings.Contains(err.Error(), "cannot hold more") {
				break
			}
			if err != nil || n > 100 {
				t.Fatalf("fork %d: %v", n, err)
			}
		}
		commit(w, o, with(2, 100<<10)) // the owner goes on
		claim(w, task)
	})
}

// Wherever a fork is killed, nothing is lost, and what it leaves is collected: either the
// fork is there and whole, or its name can be used after the fence window.
func TestForkIsKilledAnywhere(t *testing.T) {
	for _, kind := range []faultstore.Kind{faultstore.CrashFirst, faultstore.CrashAfter, faultstore.CrashZombie} {
		for n := 1; ; n++ {
			finished := false
			t.Run(fmt.Sprintf("%s %d", kind, n), func(t *testing.T) {
				inWorld(t, func(w *world) { finished = forkIsKilled(w, faultstore.Fault{Kind: kind, On: n}) })
			})
			if finished || t.Failed() {
				break
			}
		}
	}
}

func forkIsKilled(w *world, f faultstore.Fault) (finished bool) {
	o, _ := w.ownerWith(lastOne)
	commit(w, o, with(1, 100<<10))
	synctest.Wait()
	store := faultstore.New(w.bucket.Open(), f)
	dying, err := checkpoint.New(store, checkpoint.Options{Backoff: backend.Backoff{Attempts: 4}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.Fatal(err)
	}
	task, _ := dying.Task(source)
	seq, err := task.Fork(w.Context(), "try", checkpoint.ForkOptions{})
	if len(store.Unfired()) > 0 {
		if err != nil || seq != 1 {
			w.Errorf("%d, %v", seq, err)
		}
		return true
	}
	w.wantState(source, "1")
	commit(w, o, with(2, 100<<10))
	mustDo(w, w.collectNamed(source))
	made := false
	if status, err := w.status("try"); err != nil {
		w.Fatal(err)
	} else if made = status.Latest != nil; made {
		w.wantState("try", "1")
		w.wantVerified("try", 1)
	}
	time.Sleep(checkpoint.FenceWindow + time.Minute)
	store.Land() // what was sent may come late
	mustDo(w, w.collectNamed(source))
	commit(w, o, with(3, 100<<10))
	commit(w, o, with(4, 100<<10))
	synctest.Wait()
	mustDo(w, w.collectNamed(source), w.collectNamed(source))
	status, err := w.status("try")
	if err != nil {
		w.Fatal(err)
	}
	if status.Latest != nil {
		w.wantState("try", "1")
		w.wantVerified("try", 1)
		w.wantState(source, "4 1")
		return false
	}
	if made {
		w.Error("the fork is gone")
	}
	commit(w, o, with(5, 100<<10))
	w.wantState(source, "5")
	w.fork(source, "try", checkpoint.Ref{})
	w.wantState("try", "5")
	return false
}

func (w *world) status(name string) (checkpoint.Status, error) {
	task, _ := w.named(name, checkpoint.Options{})
	return task.Status(w.Context())
}

// A hold is dropped neither while the fork may still be made nor because its source's
// owner was away.
func TestHoldOfAForkUnderWay(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		collected := false
		task := w.hookedTask(checkpoint.Options{}, func(verb, key string) {
			if verb == "create" && strings.HasPrefix(key, "try/") && !collected {
				collected = true
				commit(w, o, with(2, 100<<10))
				commit(w, o, with(3, 100<<10))
				mustDo(w, w.collectNamed(source))
				_, err := w.mustTask().Delete(w.Context(), checkpoint.DeleteOptions{})
				if !errors.Is(err, checkpoint.ErrHeld) || !strings.Contains(err.Error(), `"try" is being made`) {
					t.Errorf("deletion: %v; want that a fork is being made", err)
				}
			}
		})
		if _, err := task.Fork(w.Context(), "try", checkpoint.ForkOptions{}); err != nil || !collected {
			t.Fatalf("%v, %t", err, collected)
		}
		w.wantState("try", "1")

		// One that slept for longer finds its number taken.
		collected = false
		task = w.hookedTask(checkpoint.Options{}, func(verb, key string) {
			if verb == "create" && strings.HasPrefix(key, "late/") && !collected {
				collected = true
				time.Sleep(checkpoint.FenceWindow + time.Minute)
				mustDo(w, w.collectNamed(source))
				commit(w, o, with(4, 100<<10))
				commit(w, o, with(5, 100<<10))
			}
		})
		_, err := task.Fork(w.Context(), "late", checkpoint.ForkOptions{})
		if !errors.Is(err, checkpoint.ErrConflict) || errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("%v; want ErrConflict", err)
		}
		if status, err := w.status("late"); err != nil || !status.Deleted {
			t.Errorf("%+v, %v", status, err)
		}
		commit(w, o, with(6, 100<<10))
		w.wantState(source, "6 1")
		if seq := w.fork(source, "late", checkpoint.Ref{}); seq != 2 {
			t.Errorf("the fork begins with %d", seq)
		}
	})
}

// A rollback, a claim, an amendment and a repair keep what is held.
func TestHoldOutlivesWhatChangesTheSource(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		for n := range 3 {
			commit(w, o, with(n+1, 100<<10)) // 2 to 4
		}
		w.fork(source, "try", checkpoint.Seq(2))
		task, _ := w.named(source, lastOne)
		mustDo(t,
			second(task.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{At: checkpoint.Seq(3)})),
			second(task.Rollback(w.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{Fence: true})),
			second(task.Rollback(w.Context(), checkpoint.Seq(4), checkpoint.RollbackOptions{})),
			second(task.Save(w.Context(), with(5, 100<<10), checkpoint.SaveOptions{})),
			second(task.Prune(w.Context(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{})),
		)
		commit(w, claim(w, task), with(6, 100<<10))
		synctest.Wait()
		mustDo(t, w.collectNamed(source))
		w.wantState(source, "6 1 2")
		w.wantState("try", "1")
		r, err := task.Prune(w.Context(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{DryRun: true})
		if c := r.Checkpoints[1]; err != nil || c.Seq != 2 || !slices.Equal(c.KeptBy, []string{"fork"}) {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestStatusTellsOfForks(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 100<<10))
		w.fork(source, "try", checkpoint.Ref{})
		if s, err := w.status(source); err != nil || s.ForkedFrom != nil || len(s.Forks) != 1 || s.Forks[0] != (checkpoint.ForkInfo{Task: "try", Seq: 2}) {
			t.Errorf("%+v, %v", s, err)
		}
		if s, err := w.status("try"); err != nil || s.Claimed || len(s.Forks) != 0 || s.ForkedFrom == nil || *s.ForkedFrom != (checkpoint.ForkInfo{Task: source, Seq: 2}) {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// A fork that may have been made keeps its data, whatever its source does.
func TestForkInDoubt(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		task, store := w.named(source, checkpoint.Options{})
		store.Arm(
			faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", Key: "try/", On: 1},
			faultstore.Fault{Kind: faultstore.FailBefore, Verb: "get", Key: "try/"},
		)
		if _, err := task.Fork(w.Context(), "try", checkpoint.ForkOptions{}); !errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("%v; want ErrUnknown", err)
		}
		commit(w, o, with(2, 100<<10))
		commit(w, o, with(3, 100<<10))
		mustDo(t, w.collectNamed(source))
		w.wantState("try", "1")
		w.wantVerified("try", 1)
	})
}

// The latest checkpoint is the latest when the source holds it.
func TestForkOfABusyTask(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		n := 1
		task := w.hookedTask(checkpoint.Options{}, func(verb, key string) {
			if verb == "create" && n < 4 {
				n++
				commit(w, o, with(n, 100<<10))
				synctest.Wait()
			}
		})
		if _, err := task.Fork(w.Context(), "try", checkpoint.ForkOptions{}); err != nil {
			t.Fatal(err)
		}
		w.wantState("try", "4")
	})
}
