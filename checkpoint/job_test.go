package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// awkward are task names in the order of their keys.
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
	for n, name := range awkward { // each task has only its own checkpoints
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

// The listing skips tasks with many objects by one new request.
func TestListingSkipsLargeTasks(t *testing.T) {
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

// hiding is a store in which some directories cannot be read.
type hiding struct {
	backend.Store
	dirs []string
}

func (s hiding) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		for o, err := range s.Store.List(ctx, prefix, after) {
			for _, dir := range s.dirs {
				if strings.HasPrefix(o.Key, dir) && err == nil {
					err = &backend.Error{Op: "list", Key: prefix, Err: &backend.HiddenError{Prefix: dir, Err: backend.ErrPermission}}
				}
			}
			if !yield(o, err) || err != nil {
				return
			}
		}
	}
}

// A task that cannot be read, or not all of it, hides no other.
func TestTasksBesideHiddenOnes(t *testing.T) {
	bucket, _, _ := awkwardJob(t)
	for name, dirs := range map[string][]string{
		"the first":               {"-/"},
		"the last":                {"segments/"},
		"one":                     {"a/"},
		"all":                     {""},
		"two together":            {"a.b/", "a/"},
		"segments":                {"a/segments/"},
		"manifests":               {"a/manifests/"},
		"what is not a task":      {"_zz/"},
		"a part of what is not":   {"_zz/x/"},
		"the last and not a task": {"_zz/", "segments/"},
	} {
		t.Run(name, func(t *testing.T) {
			mustDo(t, second(bucket.Open().Put(t.Context(), "_zz/x/y", []byte("x"))))
			if dirs[0] == "" {
				dirs = nil
				for o, err := range bucket.Open().List(t.Context(), "", "") {
					mustDo(t, err)
					dirs = append(dirs, o.Key[:strings.IndexByte(o.Key, '/')+1])
				}
			}
			job := newJob(t, hiding{bucket.Open(), dirs}, checkpoint.Options{Backoff: backend.Backoff{Attempts: 1}})
			defer job.Close(context.Background())
			if got := tasksOf(t, job); !slices.Equal(got, awkward) {
				t.Errorf("tasks %q, want %q", got, awkward)
			}
		})
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
		"backup/a", "backup/b/c", "zz.d/manifests/x", "_zz/manifests/fffffffffffffffe", // directories that cannot be a task's
		"b/c", "b/manifests/0000", "b/manifests/ffffffffffffffff", "c/segments/x", // directories that might be a task's
		"a/0", "a/a/b", "a/manifests.bak/0", "a/manifests/0", "a/segments/0", "a/zz", "a/zzzzzz", // inside a task's directory, before and after its objects
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

// A save that was killed before its manifest leaves segments, but no task.
func TestSegmentsAloneAreNoTask(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, store := w.open(checkpoint.Options{Memory: 1 << 20}, faultstore.Fault{Kind: faultstore.CrashAfter, Verb: "put", On: 2})
		if _, err := task.Save(w.Context(), with(1, 150<<10), checkpoint.SaveOptions{}); !errors.Is(err, faultstore.ErrCrashed) {
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
