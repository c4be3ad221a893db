package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

func (w *world) setStartpoint(s checkpoint.Startpoint) checkpoint.Startpoint {
	w.Helper()
	task, _, _ := w.process()
	set, err := task.SetStartpoint(w.Context(), s)
	if err != nil {
		w.Fatal(err)
	}
	return set
}

// startpoints returns all of them, in a short form.
func (w *world) startpoints() string {
	w.Helper()
	task, _, _ := w.process()
	list, err := task.Startpoints(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	var all []string
	for _, s := range list {
		all = append(all, fmt.Sprint(s.Partition, " ", s.At, s.Offset))
	}
	return strings.Join(all, ", ")
}

func TestStartpoints(t *testing.T) {
	inWorld(t, func(w *world) {
		oldest := checkpoint.Startpoint{Partition: "in", At: checkpoint.StartAtOldest}
		task, _, store := w.process()
		if _, err := task.SetStartpoint(w.Context(), oldest); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
			t.Errorf("of a task that is not there: %v", err)
		}
		o, _ := w.owner()
		commit(w, o, at(1))
		before := store.Calls()
		first, err := task.SetStartpoint(w.Context(), oldest)
		if err != nil || store.Calls()-before != 4 || first.ID == "" || !first.SetAt.Equal(time.Now()) || first.SetBy == "" {
			t.Errorf("%+v, %v, after %d requests", first, err, store.Calls()-before)
		}
		w.setStartpoint(checkpoint.Startpoint{Partition: "in", At: checkpoint.StartAtOffset, Offset: "4711"})
		w.setStartpoint(checkpoint.Startpoint{Partition: "other", At: checkpoint.StartAtTime, Time: time.Now()})
		if got := w.startpoints(); got != "in oldest, in offset4711, other time" {
			t.Error(got)
		}
		commit(w, o, at(2)) // nobody is disturbed
		w.wantClean(2)
		if r, _ := w.verify(allData); len(r.OtherObjects) > 0 {
			t.Errorf("foreign: %q", r.OtherObjects)
		}

		// One that was set meanwhile is not removed with those that were there.
		list, err := task.Startpoints(w.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := task.RemoveStartpoints(w.Context(), first.ID, list[1].ID, list[2].ID); err != nil {
			t.Fatal(err)
		}
		last := w.setStartpoint(oldest)
		if err := task.RemoveStartpoints(w.Context(), first.ID, list[1].ID); err != nil || w.startpoints() != "in oldest" || last.ID == first.ID {
			t.Errorf("%q, %v", w.startpoints(), err)
		}
		if err := task.RemoveStartpoints(w.Context(), "../x"); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("a bad id: %v", err)
		}

		// A fork begins without, and a deletion leaves none.
		if _, err := task.Fork(w.Context(), "fork", checkpoint.ForkOptions{}); err != nil {
			t.Fatal(err)
		}
		_, job, _ := w.process()
		fork, err := job.Task("fork")
		if err != nil {
			t.Fatal(err)
		}
		if list, err := fork.Startpoints(w.Context()); len(list) > 0 || err != nil {
			t.Errorf("a fork has %v, %v", list, err)
		}
		for _, name := range []string{"fork", "orders/7"} {
			task, err := job.Task(name)
			if err == nil {
				_, err = task.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := w.startpoints(); got != "" {
			t.Errorf("a deleted task has %s", got)
		}
		if _, err := task.SetStartpoint(w.Context(), oldest); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
			t.Errorf("of a deleted task: %v", err)
		}
	})
}

// What came late, to a task that was deleted meanwhile, is collected; what is of its next
// life is not.
func TestStartpointsOfADeletedTask(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, at(1))
		late := w.setStartpoint(checkpoint.Startpoint{Partition: "in", At: checkpoint.StartAtOldest})
		id, _ := format.ParseStartpointID(late.ID)
		key := format.StartpointKey(dir, id)
		data := w.read(key)
		task, _, _ := w.process()
		if _, err := task.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true}); err != nil {
			t.Fatal(err)
		}
		w.write(key, data)
		collect := func(before func()) {
			job := newJob(w, hookedGets{w.bucket.Open(), before, func([]byte) {}}, checkpoint.Options{})
			defer func() { _ = job.Close(context.Background()) }()
			task, err := job.Task("orders/7")
			if err == nil {
				_, err = task.Collect(w.Context(), checkpoint.CollectOptions{})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		collect(func() {})
		if w.exists(key) {
			t.Error("it is still there")
		}
		for read := 1; ; read++ { // a new life begins before one of the collector's reads
			calls := 0
			begun := false
			collect(func() {
				if calls++; calls != read {
					return
				}
				begun = true
				o, _ := w.owner()
				commit(w, o, at(1))
				w.setStartpoint(checkpoint.Startpoint{Partition: "in", At: checkpoint.StartAtNewest})
			})
			if !begun {
				break
			}
			if got := w.startpoints(); got != "in newest" {
				t.Errorf("a new life before read %d has %q", read, got)
			}
			if _, err := task.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestStartpointsThatCannotBe(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, at(1))
		task, _, store := w.process()
		for name, s := range map[string]checkpoint.Startpoint{
			"no partition":      {At: checkpoint.StartAtOldest},
			"no place":          {Partition: "in"},
			"another place":     {Partition: "in", At: "middle"},
			"no offset":         {Partition: "in", At: checkpoint.StartAtOffset},
			"no time":           {Partition: "in", At: checkpoint.StartAtTime},
			"a needless offset": {Partition: "in", At: checkpoint.StartAtOldest, Offset: "1"},
			"a needless time":   {Partition: "in", At: checkpoint.StartAtOffset, Offset: "1", Time: time.Now()},
		} {
			if _, err := task.SetStartpoint(w.Context(), s); !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if store.Calls() > 0 {
			t.Errorf("%d requests were sent", store.Calls())
		}
		// One that cannot be read does not hide the others.
		bad := w.setStartpoint(checkpoint.Startpoint{Partition: "in", At: checkpoint.StartAtOldest})
		w.setStartpoint(checkpoint.Startpoint{Partition: "in", At: checkpoint.StartAtNewest})
		id, _ := format.ParseStartpointID(bad.ID)
		w.write(format.StartpointKey(dir, id), []byte("rubbish"))
		list, err := task.Startpoints(w.Context())
		if len(list) != 1 || !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), bad.ID) {
			t.Errorf("%v, %v", list, err)
		}
		if err := task.RemoveStartpoints(w.Context(), bad.ID); err != nil || w.startpoints() != "in newest" {
			t.Errorf("%v, %q", err, w.startpoints())
		}
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "list", Err: backend.ErrPermission, On: 1})
		if list, err := task.Startpoints(w.Context()); len(list) > 0 || !errors.Is(err, backend.ErrPermission) {
			t.Errorf("%v, %v", list, err)
		}
	})
}
