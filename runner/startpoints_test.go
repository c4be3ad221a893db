package runner

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

func (w *world) setStartpoint(s checkpoint.Startpoint) {
	w.t.Helper()
	task, err := w.looker.Task("a")
	if err == nil {
		_, err = task.SetStartpoint(context.Background(), s)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// wantStartpoints fails unless the task has startpoints of these partitions.
func (w *world) wantStartpoints(partitions ...string) {
	w.t.Helper()
	task, err := w.looker.Task("a")
	if err != nil {
		w.t.Fatal(err)
	}
	list, err := task.Startpoints(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	var got []string
	for _, s := range list {
		got = append(got, s.Partition)
	}
	if !slices.Equal(got, partitions) {
		w.t.Errorf("there are startpoints of %q; want %q", got, partitions)
	}
}

// advance makes a step that advances partitions, and commits.
func advance(t *testing.T, task *Task, to map[string]string) {
	t.Helper()
	err := task.Step(t.Context(), func(p *Position) error {
		for partition, offset := range to {
			p.Advance(partition, offset)
		}
		return nil
	})
	if err == nil {
		_, err = task.Commit(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A startpoint beats the checkpoint and the rules, whoever takes the task on, until its
// partition has made progress in a checkpoint. Until then the checkpoint's own offset is
// committed again. The last one of a partition counts.
func TestStartpointIsUsedOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		own := func() *Task {
			task, _ := w.own(r, "a", func(s *Spec) { s.Inputs = map[string]Input{"x": {Ignore: true}, "y": {Missing: Refuse}} })
			return task
		}
		stop := func(task *Task) {
			if err := task.Abandon(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		task := own()
		advance(t, task, map[string]string{"in": "5", "x": "6"})
		stop(task)
		at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
		for _, s := range []checkpoint.Startpoint{
			{Partition: "in", At: checkpoint.StartAtNewest},
			{Partition: "in", At: checkpoint.StartAtOffset, Offset: "2"},
			{Partition: "x", At: checkpoint.StartAtOldest},
			{Partition: "y", At: checkpoint.StartAtTime, Time: at},
		} {
			w.setStartpoint(s)
		}
		wants := map[string]Start{"in": {At: Checkpointed, Offset: "2"}, "x": {At: Oldest}, "y": {At: AtTime, Time: at}}
		for range 2 {
			task = own()
			for partition, want := range wants {
				got, err := task.Restored().Start(partition)
				if got.Startpoint == "" {
					t.Errorf("%s starts not by a startpoint", partition)
				}
				if got.Startpoint = ""; got != want || err != nil {
					t.Errorf("%s starts at %+v, %v; want %+v", partition, got, err, want)
				}
			}
			if err := task.Step(t.Context(), func(p *Position) error {
				if offset, ok := p.Offset("in"); offset != "2" || !ok {
					t.Errorf("a step sees offset %q, %v", offset, ok)
				}
				if offset, ok := p.Offset("x"); ok {
					t.Errorf("a step sees offset %q of x", offset)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			c, err := task.Commit(t.Context())
			if err != nil || c.Offsets["in"] != "5" {
				t.Errorf("a commit before any progress has %v, %v", c.Offsets, err)
			}
			w.wantStartpoints("in", "in", "x", "y")
			stop(task)
		}
		task = own()
		_ = task.Step(t.Context(), func(p *Position) error { p.Advance("x", "1"); return errHost }) // no progress
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.wantStartpoints("in", "in", "x", "y")
		w.setStartpoint(checkpoint.Startpoint{Partition: "in", At: checkpoint.StartAtOldest}) // it is for the next start
		advance(t, task, map[string]string{"in": "3"})
		w.wantStartpoints("x", "y", "in")
		advance(t, task, map[string]string{"x": "1", "y": "1"})
		w.wantStartpoints("in")
		stop(task)
		task = own()
		if got, err := task.Restored().Start("in"); got.At != Oldest || err != nil {
			t.Errorf("in starts at %+v, %v", got, err)
		}
		advance(t, task, map[string]string{"in": "1"})
		w.wantStartpoints()
		if got := task.startpoints.ids; len(got) > 0 {
			t.Errorf("it still knows %v", slices.Collect(maps.Keys(got)))
		}
	})
}

// What the store does not remove is removed after a later commit. A commit that failed, or is
// in doubt, removes nothing.
func TestStartpointsBesideFaults(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: Manual, CommitTimeout: time.Minute})
		task, _ := w.own(r, "a")
		advance(t, task, map[string]string{"in": "5"})
		if err := task.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.setStartpoint(checkpoint.Startpoint{Partition: "in", At: checkpoint.StartAtOldest})
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "list", Key: "startpoints", Err: backend.ErrPermission, On: 1})
		if _, _, err := w.tryOwn(r, "a"); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("the startpoints could not be listed, and it was owned: %v", err)
		}
		task, h := w.own(r, "a")
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create"})
		h.mustAdd(task)
		if _, err := task.Commit(t.Context()); err == nil {
			t.Error("a commit without a store")
		}
		w.wantStartpoints("in")
		store.Disarm()
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "delete", Err: backend.ErrPermission, On: 1})
		h.mustAdd(task)
		if _, err := task.Commit(t.Context()); err != nil { // what was in doubt is settled, and removes it in vain
			t.Fatal(err)
		}
		if len(store.Unfired()) > 0 {
			t.Error("nothing was to be removed")
		}
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.wantStartpoints()
	})
}

// A startpoint that a checkpoint says was used is not used again, although it is still there:
// the owner died before it had removed it.
func TestStartpointThatCouldNotBeRemoved(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: Manual})
		task, _ := w.own(r, "a")
		advance(t, task, map[string]string{"in": "5"})
		if err := task.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.setStartpoint(checkpoint.Startpoint{Partition: "in", At: checkpoint.StartAtNewest})
		w.setStartpoint(checkpoint.Startpoint{Partition: "x", At: checkpoint.StartAtNewest})
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "delete", Err: backend.ErrPermission})
		for _, c := range []struct{ from, to string }{{"", "9"}, {"9", "10"}, {"10", "11"}} {
			task, _ = w.own(r, "a")
			start, err := task.Restored().Start("in")
			if ordered := c.from == ""; ordered != (start.Startpoint != "") || start.Offset != c.from || err != nil {
				t.Errorf("it starts at %+v, %v; want offset %q", start, err, c.from)
			}
			if start, err := task.Restored().Start("x"); start.At != Newest || err != nil {
				t.Errorf("x starts at %+v, %v", start, err)
			}
			advance(t, task, map[string]string{"in": c.to})
			w.wantStartpoints("in", "x")
			if err := task.Abandon(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		store.Disarm()
		task, _ = w.own(r, "a")
		for _, want := range []bool{true, false} { // the first one is committed before the removal
			c, err := task.Commit(t.Context())
			if err != nil || (c.Labels[usedLabel] != "") != want {
				t.Errorf("%v, %v", c.Labels, err)
			}
			w.wantStartpoints("x")
		}
	})
}

// A Worker says itself how far it is. Its startpoint is used when that is not where the
// checkpoint was.
func TestStartpointOfAWorker(t *testing.T) {
	asked := func(partition string) bool { return partition != "b" }
	for _, c := range []struct {
		stepped bool
		at      map[string]string
		want    string
	}{
		{false, map[string]string{}, ""},
		{false, map[string]string{"a": "5"}, ""},
		{false, map[string]string{"a": "0"}, "a"},
		{false, map[string]string{"a": "5", "b": "1"}, "b"},
		{false, map[string]string{"a": "6", "b": "1", "c": "1"}, "a b"},
		{true, map[string]string{"a": "5", "b": "2"}, "a"}, // it came back to where it was
		{true, map[string]string{}, ""},
	} {
		s := &startpoints{ids: map[string][]string{"a": {"1"}, "b": {"2"}}, before: map[string]string{"a": "5", "b": "2"}}
		s.stepped.Store(c.stepped)
		got := s.progressed(c.at, true, nil, asked)
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v, after a step: %v: %q; want %q", c.at, c.stepped, got, c.want)
		}
	}
}

// A Worker that has read its input again up to where it was has used its startpoint.
func TestStartpointOfAWorkerThatIsBackWhereItWas(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		task, _ := w.own(r, "a")
		advance(t, task, map[string]string{"in": "3"})
		if err := task.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.setStartpoint(checkpoint.Startpoint{Partition: "in", At: checkpoint.StartAtOldest})
		starts := 0
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			opts := w.runOptions()
			opts.Tasks = []string{"a"}
			err := Run(ctx, opts, func(_ context.Context, _ string, restored *Restored) (Worker, error) {
				start, err := restored.Start("in")
				if start.At == Oldest {
					starts++
				}
				return &rereader{next: map[StartAt]int{Checkpointed: 3}[start.At]}, err
			})
			cancel()
			if err != nil {
				t.Fatal(err)
			}
		}
		if starts != 1 {
			t.Errorf("the startpoint was used %d times", starts)
		}
		w.wantStartpoints()
	})
}

// A rereader is a Worker whose input has three records.
type rereader struct{ next int }

func (r *rereader) Process(ctx context.Context) error {
	if r.next == 3 {
		<-ctx.Done()
		return ctx.Err()
	}
	r.next++
	return nil
}

func (r *rereader) Cut(context.Context, string) (Cut, error) {
	return Cut{
		Stores:  map[string]checkpoint.Source{"": checkpoint.Stream("n", strings.NewReader("3"))},
		Offsets: map[string]string{"in": strconv.Itoa(r.next)},
	}, nil
}

func (r *rereader) Close() error { return nil }
