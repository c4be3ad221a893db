package checkpoint_test

import (
	"context"
	"errors"
	"io/fs"
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

// wantCheckpoints compares the numbers of the task's checkpoints, the current one
// first, and checks that each can be read.
func (w *world) wantCheckpoints(want ...uint64) {
	w.Helper()
	task, _, _ := w.process()
	list, err := task.List(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	var got []uint64
	for _, c := range list {
		got = append(got, c.Seq)
	}
	if !slices.Equal(got, want) {
		w.Errorf("the history is %v, want %v", got, want)
	}
	w.wantReadable()
}

func TestRollback(t *testing.T) {
	inWorld(t, func(w *world) {
		opts := checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: 3}}
		o, _ := w.ownerWith(opts)
		for n := range 3 {
			commit(w, o, with(n, 100<<10)) // 2, 3 and 4
		}
		task, _, _ := w.open(opts)
		c, err := task.Rollback(w.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{Fence: true})
		if err != nil || c.Seq != 2 || c.Offsets["in"] != "0" {
			t.Fatalf("rolled back to %+v, %v", c, err)
		}
		w.wantCheckpoints(2, 4, 3)
		if _, err := o.Commit(w.Context(), at(9)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("the old owner's commit: %v, want ErrFenced", err)
		}
		status, err := task.Status(w.Context())
		if err != nil || status.Latest.Seq != 2 || status.Claimed || status.Epoch != 2 {
			t.Errorf("status %+v, %v", status, err)
		}
		again, err := task.Claim(w.Context(), checkpoint.ClaimOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close(context.Background())
		if c, err := again.Checkpoint(w.Context()); err != nil || c.Seq != 2 {
			t.Errorf("the next owner goes on from %+v, %v", c, err)
		}
		// Its commit counts as the newest, and the checkpoint that was rolled back to
		// as the one before.
		commit(w, again, with(10, 100<<10))
		synctest.Wait()
		w.wantCheckpoints(7, 2, 4)
		commit(w, again, with(11, 100<<10))
		synctest.Wait()
		w.wantCheckpoints(8, 7, 2)
	})
}

func TestClaimAt(t *testing.T) {
	inWorld(t, func(w *world) {
		first, _ := w.owner()
		s := with(1, 100<<10)
		s.Savepoint = "good"
		commit(w, first, s)
		commit(w, first, with(2, 100<<10))
		task, _, _ := w.process()
		o, err := task.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Savepoint("good")})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close(context.Background())
		dir := t.TempDir() + "/state"
		if c, err := o.Resume(w.Context(), dir); err != nil || c.Seq != 2 || c.Savepoint != "good" {
			t.Errorf("resumed from %+v, %v", c, err)
		}
		// What it shares with the checkpoint of the rollback is not uploaded.
		next := at(1)
		next.State = checkpoint.Dir(dir)
		c := commit(w, o, next)
		if o.Epoch() != 2 || c.NewBytes > 16<<10 {
			t.Errorf("epoch %d; %d new bytes", o.Epoch(), c.NewBytes)
		}
		w.wantCheckpoints(c.Seq, 2, 3)
		if _, err := first.Commit(w.Context(), at(3)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("the old owner's commit: %v, want ErrFenced", err)
		}
	})
}

func TestRollbackToTheNewest(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, at(1))
		c := commit(w, o, at(2))
		task, _, _ := w.process()
		if got, err := task.Rollback(w.Context(), checkpoint.Seq(c.Seq), checkpoint.RollbackOptions{Fence: true}); err != nil || got.Seq != c.Seq {
			t.Errorf("%+v, %v", got, err)
		}
		w.wantCheckpoints(3, 2)
	})
}

func TestRollbackToNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, _ := w.process()
		o, _ := w.owner()
		_, none := task.Rollback(w.Context(), checkpoint.Seq(1), checkpoint.RollbackOptions{})
		commit(w, o, at(1))
		for name, err := range map[string]error{
			"empty":       none,
			"a number":    second(task.Rollback(w.Context(), checkpoint.Seq(7), checkpoint.RollbackOptions{})),
			"a claim":     second(task.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(1)})),
			"a savepoint": second(task.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Savepoint("good")})),
		} {
			if !errors.Is(err, checkpoint.ErrNoCheckpoint) {
				t.Errorf("%s: %v, want ErrNoCheckpoint", name, err)
			}
		}
		if _, err := task.Rollback(w.Context(), checkpoint.Savepoint(""), checkpoint.RollbackOptions{}); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("no name: %v, want ErrInvalid", err)
		}
		commit(w, o, at(2)) // nobody was fenced
	})
}

func second[T any](_ T, err error) error { return err }

// A retained list that is too large for the manifest is in a segment of the new
// writer, which numbers its next segments after it.
func TestRollbackWithALongHistory(t *testing.T) {
	inWorld(t, func(w *world) {
		opts := checkpoint.Options{Retention: checkpoint.Retention{Last: checkpoint.KeepAll}}
		o, _ := w.ownerWith(opts)
		for n := range 400 {
			commit(w, o, at(n))
		}
		task, _, _ := w.open(opts, faultstore.Fault{Kind: faultstore.LoseReply, Verb: "create", On: 1})
		again, err := task.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(7)})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close(context.Background())
		for n := range 3 {
			commit(w, again, with(n, 100<<10))
		}
		list, err := task.List(w.Context())
		if err != nil || len(list) != 403 || list[3].Seq != 7 {
			t.Errorf("%d checkpoints, %v", len(list), err)
		}
		fsys, err := list[0].FS(w.Context())
		if err != nil {
			t.Fatal(err)
		}
		if data, err := fs.ReadFile(fsys, "s"); err != nil || len(data) != 100<<10 {
			t.Errorf("%d bytes, %v", len(data), err)
		}
	})
}

// If a rollback loses the race for the number, it starts over from the winner's
// manifest.
func TestRollbackIsOvertaken(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, at(1))
		commit(w, o, at(2))
		task, _, store := w.process()
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", On: 1, Err: backend.ErrThrottled})
		done := make(chan error)
		go func() {
			done <- second(task.Rollback(w.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{Fence: true}))
		}()
		synctest.Wait() // it waits before it tries again
		commit(w, o, at(3))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		w.wantCheckpoints(2, 4, 3)
	})
}

// The checkpoint that a rollback has found is retired before its claim. By then, its
// name may belong to another checkpoint, which must not be taken for it.
func TestRollbackKeepsToWhatItFound(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		old := at(1)
		old.Savepoint, old.SavepointExpiresAfter = "good", time.Hour
		commit(w, o, old)
		commit(w, o, at(2))
		lists := 0
		task := w.hookedTask(lastOne, func(verb, _ string) {
			if verb != "list" {
				return
			}
			if lists++; lists != 2 { // the first is that of At
				return
			}
			for n := range 2 {
				time.Sleep(2 * time.Hour)
				commit(w, o, at(3+n))
			}
			commit(w, o, checkpoint.Snapshot{Savepoint: "good"})
		})
		if c, err := task.Rollback(w.Context(), checkpoint.Savepoint("good"), checkpoint.RollbackOptions{Fence: true}); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
			t.Errorf("rolled back to %+v, %v; want ErrNoCheckpoint", c, err)
		}
	})
}

// The retained list is deleted while a rollback reads it.
func TestRollbackReadsAListThatIsDeleted(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		first := at(1)
		first.Savepoint = "first"
		commit(w, o, first)
		for n := range 400 {
			commit(w, o, at(n))
		}
		gets := 0
		task := w.hookedTask(keepAll, func(verb, key string) {
			if verb == "get" && strings.Contains(key, segments) {
				if gets++; gets == 2 { // the first is that of At
					heir, _ := w.ownerWith(lastOne)
					commit(w, heir, at(2))
					synctest.Wait()
				}
			}
		})
		if c, err := task.Rollback(w.Context(), checkpoint.Savepoint("first"), checkpoint.RollbackOptions{Fence: true}); err != nil || c.Seq != 2 {
			t.Errorf("rolled back to %+v, %v", c, err)
		}
		w.wantHistory("1 2")
	})
}

// Another writer goes on from a claim before the claim was confirmed, and then the
// store cannot be reached. The claim must not report that nothing was done.
func TestClaimThatWasContinuedIsUnknown(t *testing.T) {
	inWorld(t, func(w *world) {
		w.forgeOwned(2)
		ctx, cancel := context.WithCancel(w.Context())
		defer cancel()
		creates, lists := 0, 0
		task := w.hookedTask(keepAll, func(verb, _ string) {
			if verb == "create" {
				creates++
			}
			if verb != "list" || creates < 2 { // not yet made and proven
				return
			}
			switch lists++; lists {
			case 1:
				w.owner()
			case 2:
				cancel()
			}
		})
		if _, err := task.Rollback(ctx, checkpoint.Seq(2), checkpoint.RollbackOptions{}); !errors.Is(err, checkpoint.ErrUnknown) || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want ErrUnknown", err)
		}
	})
}

// The segment with the list of a claim is kept if another writer has gone on from the
// claim, or if its own writer does not know that it was made.
func TestListOfARollbackIsKept(t *testing.T) {
	opts := checkpoint.Options{Retention: checkpoint.Retention{Last: checkpoint.KeepAll}}
	n := 0
	history := func(w *world) {
		o, _ := w.ownerWith(opts)
		n = w.fullList(o)
	}
	want := func(w *world) {
		w.Helper()
		task, _, _ := w.process()
		list, err := task.List(w.Context())
		if err != nil || len(list) != n || list[0].Seq != 7 || len(w.objects(segments)) != 2 {
			w.Errorf("%d checkpoints, %v; want %d, number 7 first, and their list in a piece", len(list), err, n)
		}
	}
	t.Run("another claims before it is confirmed", func(t *testing.T) {
		inWorld(t, func(w *world) {
			history(w)
			creates, claimed := 0, false
			task := w.hookedTask(opts, func(verb, _ string) {
				if verb == "create" {
					creates++
				}
				if verb == "list" && creates == 2 && !claimed { // made, and proven
					claimed = true
					w.owner()
					want(w)
				}
			})
			if _, err := task.Rollback(w.Context(), checkpoint.Seq(7), checkpoint.RollbackOptions{Fence: true}); err != nil {
				t.Error(err)
			}
			if !claimed {
				t.Error("nobody claimed")
			}
			want(w)
		})
	})
	t.Run("it cannot be confirmed", func(t *testing.T) {
		inWorld(t, func(w *world) {
			history(w)
			task, _, _ := w.open(opts, faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", On: 2, Err: backend.ErrPermission})
			if _, err := task.Rollback(w.Context(), checkpoint.Seq(7), checkpoint.RollbackOptions{Fence: true}); !errors.Is(err, checkpoint.ErrUnknown) || !errors.Is(err, backend.ErrPermission) {
				t.Errorf("%v; want ErrUnknown, for want of permission", err)
			}
			want(w)
		})
	})
}

// A rollback to a checkpoint that has lost a segment is refused, and the owner of the
// task goes on.
func TestRollbackToADamagedCheckpoint(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 100<<10))
		commit(w, o, with(2, 100<<10))
		segments := w.manifest(2).Checkpoint.Content.Segments
		key := format.SegmentKey(dir, segments[len(segments)-1].ID)
		w.remove(key)
		task, _, _ := w.process()
		if _, err := task.Rollback(w.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{}); !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), key) {
			t.Errorf("%v, want ErrCorrupt that names %s", err, key)
		}
		if _, err := task.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(2)}); !errors.Is(err, checkpoint.ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
		commit(w, o, with(3, 100<<10))
	})
}
