package checkpoint_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// heartbeat returns the number of the last heartbeat, or 0.
func (w *world) heartbeat() uint64 {
	w.Helper()
	task, _, store := w.process()
	h, err := task.LastHeartbeat(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	if n := store.Calls(); n != 1 {
		w.Errorf("it took %d requests", n)
	}
	if h == nil {
		return 0
	}
	return h.N
}

func TestHeartbeatOfAnOwner(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.owner()
		commit(w, o, at(1))
		if n := w.heartbeat(); n != 0 {
			t.Errorf("heartbeat %d before there was any", n)
		}
		synctest.Wait() // until the owner has cleaned up
		before := store.Calls()
		for range 2 {
			if err := o.Heartbeat(w.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := store.Calls() - before; n != 4 {
			t.Errorf("two heartbeats took %d requests", n)
		}
		if n := w.heartbeat(); n != 2 {
			t.Errorf("heartbeat %d; want 2", n)
		}
		task, job, _ := w.process()
		h, err := task.LastHeartbeat(w.Context())
		status, err2 := task.Status(w.Context())
		if want := (checkpoint.Heartbeat{Epoch: status.Epoch, Writer: status.Writer, N: 2, Time: time.Now().UTC()}); err != nil || err2 != nil || *h != want {
			t.Errorf("%+v, %v, %v; want %+v", h, err, err2, want)
		}

		// Nothing else takes notice of it.
		w.wantClean(1)
		if r, _ := w.verify(allData); len(r.OtherObjects) > 0 {
			t.Errorf("other objects: %q", r.OtherObjects)
		}
		calls := job.Stats()
		for _, err := range job.Tasks(w.Context()) {
			if err != nil {
				t.Error(err)
			}
		}
		if n := job.Stats().List.Calls - calls.List.Calls; n != 1 {
			t.Errorf("a task with a heartbeat takes %d listings to be listed", n)
		}

		// An amendment is no reason to end. A claim is.
		if _, err := task.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := o.Heartbeat(w.Context()); err != nil {
			t.Error(err)
		}
		heir := claim(w, task)
		if err := o.Heartbeat(w.Context()); !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("a fenced owner's heartbeat: %v", err)
		}
		if n := w.heartbeat(); n != 3 {
			t.Errorf("heartbeat %d; want 3", n)
		}
		if err := heir.Release(w.Context()); err != nil {
			t.Fatal(err)
		}
		if err := heir.Heartbeat(w.Context()); err == nil {
			t.Error("an owner that has released the task sent a heartbeat")
		}
		if _, err := task.Delete(w.Context(), checkpoint.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if w.exists(format.HeartbeatKey(dir)) {
			t.Error("a deleted task has a heartbeat")
		}
	})
}

// A heartbeat does not wait for a commit that takes long, nor for one that is in doubt.
func TestHeartbeatBesideACommit(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.owner(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: time.Hour, On: 1})
		ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
		defer cancel()
		committed := make(chan error)
		go func() {
			_, err := o.Commit(ctx, at(1))
			committed <- err
		}()
		synctest.Wait()
		began := time.Now()
		if err := o.Heartbeat(w.Context()); err != nil || !time.Now().Equal(began) {
			t.Errorf("%v, after %v", err, time.Since(began))
		}
		if err := <-committed; !errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("the commit: %v", err)
		}
		calls := store.Calls()
		if err := o.Heartbeat(w.Context()); err != nil || store.Calls() != calls+1 {
			t.Errorf("%v, after %d requests; want 1", err, store.Calls()-calls)
		}
		if n := w.heartbeat(); n != 2 {
			t.Errorf("heartbeat %d; want 2", n)
		}
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "put", Err: backend.ErrPermission, On: 1})
		if err := o.Heartbeat(w.Context()); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("a heartbeat that failed: %v", err)
		}
		commit(w, o, at(2))
	})
}

func TestHeartbeatThatCannotBeRead(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		w.write(format.HeartbeatKey(dir), []byte("rubbish"))
		task, _, _ := w.process()
		if _, err := task.LastHeartbeat(w.Context()); !errors.Is(err, checkpoint.ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
		if err := o.Heartbeat(w.Context()); err != nil { // it replaces that
			t.Fatal(err)
		}
		if n := w.heartbeat(); n != 1 {
			t.Errorf("heartbeat %d", n)
		}
	})
}

func TestNewer(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, store := w.process()
		newer := func(than uint64, requests int, want uint64) {
			t.Helper()
			before := store.Calls()
			s, ok, err := task.Newer(w.Context(), than)
			if err != nil || ok != (want > 0) || s.Manifest != want || store.Calls()-before != requests {
				t.Errorf("newer than %d: manifest %d, %v, %v after %d requests; want manifest %d after %d",
					than, s.Manifest, ok, err, store.Calls()-before, want, requests)
			}
		}
		newer(0, 2, 0)
		o, _ := w.owner()
		commit(w, o, at(1))
		newer(0, 2, 2)
		newer(2, 1, 0)
		commit(w, o, at(2))
		commit(w, o, at(3))
		newer(2, 3, 4)
		newer(4, 1, 0)
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "get", Err: backend.ErrPermission, On: 1})
		if _, ok, err := task.Newer(w.Context(), 4); ok || !errors.Is(err, backend.ErrPermission) {
			t.Errorf("%v, %v; want ErrPermission", ok, err)
		}
	})
}

func TestClaimIfEpoch(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, _ := w.process()
		o, err := task.Claim(w.Context(), checkpoint.ClaimOptions{IfEpoch: new(uint64(0))})
		if err != nil {
			t.Fatal("of a new task:", err)
		}
		if _, err := task.Claim(w.Context(), checkpoint.ClaimOptions{IfEpoch: new(uint64(0))}); !errors.Is(err, checkpoint.ErrConflict) {
			t.Errorf("of a task that is new no more: %v", err)
		}
		epoch := o.Epoch()
		if _, err := task.Claim(w.Context(), checkpoint.ClaimOptions{IfEpoch: new(epoch + 1)}); !errors.Is(err, checkpoint.ErrConflict) {
			t.Errorf("of a later epoch: %v", err)
		}
		if _, err := task.Claim(w.Context(), checkpoint.ClaimOptions{IfEpoch: &epoch, At: checkpoint.Seq(1)}); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("with a rollback: %v", err)
		}
		o, err = task.Claim(w.Context(), checkpoint.ClaimOptions{IfEpoch: &epoch})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := task.Claim(w.Context(), checkpoint.ClaimOptions{IfEpoch: &epoch}); !errors.Is(err, checkpoint.ErrConflict) {
			t.Errorf("of an earlier epoch: %v", err)
		}
		commit(w, o, at(1))
	})
}

func TestSameState(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		empty := commit(w, o, at(0))
		a := commit(w, o, with(1, 100<<10))
		b := commit(w, o, with(2, 100<<10))
		task, _, _ := w.process()
		again, err := task.Get(w.Context(), checkpoint.Seq(a.Seq))
		if err != nil {
			t.Fatal(err)
		}
		if !a.SameState(again) || !empty.SameState(empty) || a.SameState(b) || a.SameState(empty) || empty.SameState(a) {
			t.Error("states are taken for others")
		}
	})
}
