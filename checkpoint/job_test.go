package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// awkward are names in the order of their keys.
var awkward = []string{
	"-", ".a", "/", "A", "Partition 3", "_", "é", "a-b", "a.b", "a", "a/b", "manifests", "orders/7", "segments",
}

func tasksOf(t tester, job *checkpoint.Job) []string {
	t.Helper()
	var list []string
	for task, err := range job.Tasks(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if list = append(list, task.Name()); len(list) > 100 {
			t.Fatalf("there is no end to %q", list)
		}
	}
	return list
}

// awkwardJob returns a job in which each of the awkward tasks has checkpoints.
func awkwardJob(t *testing.T) (*mem.Bucket, *checkpoint.Job, *faultstore.Store) {
	t.Helper()
	bucket := mem.NewBucket(time.Now)
	store := faultstore.New(bucket.Open())
	job := newJob(t, store, checkpoint.Options{Backoff: backend.Backoff{Attempts: 1}})
	t.Cleanup(func() { _ = job.Close(context.Background()) })
	for n, name := range slices.Backward(awkward) {
		task, err := job.Task(name)
		if err != nil {
			t.Fatal(err)
		}
		o := claim(t, task)
		for range 4 {
			commit(t, o, with(n, 20<<10))
		}
		if err := o.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	return bucket, job, store
}

func TestTasks(t *testing.T) {
	_, job, store := awkwardJob(t)
	before := store.Calls()
	if got := tasksOf(t, job); !slices.Equal(got, awkward) {
		t.Errorf("the tasks are %q, want %q", got, awkward)
	}
	if calls := store.Calls() - before; calls != 1 {
		t.Errorf("%d tasks took %d requests", len(awkward), calls)
	}
	for n, name := range awkward { // none sees another's
		task, err := job.Task(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := task.Latest(t.Context())
		if err != nil || c.Task != name || c.Offsets["in"] != at(n).Offsets["in"] {
			t.Errorf("%q: %+v, %v", name, c, err)
		}
	}
}

// A task with more objects than are worth reading over is jumped over.
func TestTasksAreJumpedOver(t *testing.T) {
	bucket, job, store := awkwardJob(t)
	for _, name := range []string{"-", "a", "segments"} {
		dir, err := format.EscapeTask(name)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 1200 {
			if _, err := bucket.Open().Put(t.Context(), fmt.Sprintf("%s/segments/x-%04d", dir, n), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := store.Calls()
	if got := tasksOf(t, job); !slices.Equal(got, awkward) {
		t.Errorf("the tasks are %q, want %q", got, awkward)
	}
	if calls := store.Calls() - before; calls != 4 {
		t.Errorf("it took %d requests, want 4", calls)
	}
	store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "list", On: 3, Err: backend.ErrPermission})
	var got []string
	var errs []error
	for task, err := range job.Tasks(t.Context()) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		got = append(got, task.Name())
	}
	if !slices.Equal(got, awkward[:10]) || len(errs) != 1 || !errors.Is(errs[0], backend.ErrPermission) {
		t.Errorf("%q, then %v", got, errs)
	}
}

func TestTasksOfAnEmptyJob(t *testing.T) {
	job := newJob(t, mem.NewBucket(time.Now).Open(), checkpoint.Options{})
	if got := tasksOf(t, job); len(got) > 0 {
		t.Errorf("the tasks are %q", got)
	}
}

func TestForeignObjectsAreNoTasks(t *testing.T) {
	bucket, job, store := awkwardJob(t)
	foreign := []string{
		"0", "readme.txt", "zz", // beside the tasks
		"backup/a", "backup/b/c", "zz.d/manifests/x", "_zz/manifests/fffffffffffffffe", // directories that are no task's
		"b/c", "b/manifests/0000", "b/manifests/ffffffffffffffff", "c/segments/x", // directories that might be
		"a/0", "a/a/b", "a/manifests.bak/0", "a/manifests/0", "a/segments/0", "a/zz", "a/zzzzzz", // in a task's own, before and after what is in it
		"_41/manifests/0000000000000000.tmp", "_c3_a9/0",
		"d/a/manifests/fffffffffffffffe", // of a job below this one
	}
	for _, key := range foreign {
		if _, err := bucket.Open().Put(t.Context(), key, []byte("foreign")); err != nil {
			t.Fatal(err)
		}
	}
	before := store.Calls()
	if got := tasksOf(t, job); !slices.Equal(got, awkward) {
		t.Errorf("the tasks are %q, want %q", got, awkward)
	}
	if calls := store.Calls() - before; calls > len(awkward)+2*len(foreign) {
		t.Errorf("it took %d requests", calls)
	}
	for n, name := range awkward {
		task, err := job.Task(name)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := task.Latest(t.Context()); err != nil || c.Offsets["in"] != at(n).Offsets["in"] {
			t.Errorf("%q: %+v, %v", name, c, err)
		}
		commit(t, claim(t, task), at(n))
	}
}

// A save that was killed before its manifest leaves segments, and no task.
func TestSegmentsAloneAreNoTask(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, store := w.open(checkpoint.Options{SegmentSize: 64 << 10}, faultstore.Fault{Kind: faultstore.CrashAfter, Verb: "put", On: 2})
		if _, err := task.Save(w.Context(), with(1, 150<<10)); !errors.Is(err, faultstore.ErrCrashed) {
			t.Fatal(err)
		}
		if len(w.objects(segments)) == 0 || len(store.Unfired()) > 0 {
			t.Fatal("the save was not killed as it should have been")
		}
		_, job, _ := w.process()
		if got := tasksOf(w, job); len(got) > 0 {
			t.Errorf("the tasks are %q", got)
		}
	})
}

func TestTasksEnds(t *testing.T) {
	_, job, store := awkwardJob(t)
	before := store.Calls()
	for _, err := range job.Tasks(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	if calls := store.Calls() - before; calls != 1 {
		t.Errorf("the first task took %d requests", calls)
	}
}
