package checkpoint_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
	_ "github.com/holdfast-io/holdfast/gcs"
	"github.com/holdfast-io/holdfast/internal/testreq"
	"github.com/holdfast-io/holdfast/internal/testserver"
	_ "github.com/holdfast-io/holdfast/local"
	_ "github.com/holdfast-io/holdfast/s3"
)

// The engine on the real stores: the other tests check details in memory; these check
// the same from end to end. Each test has its own job.
var onStores = []struct {
	suite string
	root  func(*testing.T, string) string
}{
	{"mem", func(*testing.T, string) string { return "mem://engine" }},
	{"local", func(t *testing.T, _ string) string {
		return (&url.URL{Scheme: "file", Path: filepath.ToSlash(t.TempDir())}).String()
	}},
	{"s3", func(t *testing.T, suite string) string { return testserver.S3(t, suite) }},
	{"gcs", func(t *testing.T, suite string) string { return testserver.GCS(t, suite) }},
}

func TestEngineOnStores(t *testing.T) {
	for _, s := range onStores {
		t.Run(s.suite, func(t *testing.T) {
			testreq.Suite(t, s.suite)
			root, err := url.Parse(s.root(t, s.suite))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				name string
				run  func(*testing.T, string)
			}{
				{"commit and restore", commitAndRestore},
				{"an heir fences", heirFences},
				{"claims at once", claimsAtOnce},
				{"saves at once", savesAtOnce},
				{"tasks", tasksOfAJob},
				{"retention", retentionDeletes},
			} {
				t.Run(c.name, func(t *testing.T) {
					job := *root
					job.Path = strings.TrimSuffix(job.Path, "/") + "/" + strings.ToLower(rand.Text())
					c.run(t, job.String())
				})
			}
		})
	}
}

func openJob(t *testing.T, url string, opts checkpoint.Options) *checkpoint.Job {
	t.Helper()
	job, err := checkpoint.Open(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = job.Close(context.Background()) })
	return job
}

func taskOf(t *testing.T, url, name string, opts checkpoint.Options) *checkpoint.Task {
	t.Helper()
	task, err := openJob(t, url, opts).Task(name)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// commitAndRestore stores data in every possible place: in the manifest, in one
// segment, in several, and with a content that does not fit into the manifest.
func commitAndRestore(t *testing.T, url string) {
	o := claim(t, taskOf(t, url, "Partition 3", checkpoint.Options{Memory: 1600 << 10}))
	reader := taskOf(t, url, "Partition 3", checkpoint.Options{})
	for name, s := range map[string]checkpoint.Snapshot{
		"offsets":      at(1),
		"small":        with(2, 1000),
		"one segment":  with(3, 50<<10),
		"many offsets": large(),
		"a directory":  {State: checkpoint.Dir(makeState(t)), Savepoint: "everything"},
	} {
		made := commit(t, o, s)
		got, err := reader.Latest(t.Context())
		if err != nil || got.Seq != made.Seq || len(got.Offsets) != len(s.Offsets) || got.Bytes != made.Bytes {
			t.Fatalf("%s: newest is %+v, %v; want %+v", name, got, err, made)
		}
		if d := got.Time.Sub(made.Time).Abs(); d.Seconds() > 2 {
			t.Errorf("%s: its time is %v in the listing and %v in the reply", name, got.Time, made.Time)
		}
		dir := filepath.Join(t.TempDir(), "restored")
		if err := got.Restore(t.Context(), dir, checkpoint.RestoreOptions{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "void"), 0o755) })
	}
	if _, err := reader.Get(t.Context(), checkpoint.Savepoint("everything")); err != nil {
		t.Error(err)
	}
}

func heirFences(t *testing.T, url string) {
	old := claim(t, taskOf(t, url, "t", checkpoint.Options{}))
	commit(t, old, with(1, 30<<10))
	heir := claim(t, taskOf(t, url, "t", checkpoint.Options{}))
	if _, err := old.Commit(t.Context(), at(2)); !errors.Is(err, checkpoint.ErrFenced) {
		t.Errorf("old owner: %v, want ErrFenced", err)
	}
	if c, err := heir.Checkpoint(t.Context()); err != nil || c.Offsets["in"] != "1" {
		t.Errorf("heir goes on from %+v, %v", c, err)
	}
	commit(t, heir, at(3))
}

func claimsAtOnce(t *testing.T, url string) {
	var wg sync.WaitGroup
	owners := make([]*checkpoint.Owner, 6)
	for i := range owners {
		task := taskOf(t, url, "t", checkpoint.Options{})
		wg.Go(func() {
			var err error
			if owners[i], err = task.Claim(t.Context(), checkpoint.ClaimOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	committed := 0
	for _, o := range owners {
		if o == nil {
			continue
		}
		switch _, err := o.Commit(t.Context(), at(1)); {
		case err == nil:
			committed++
		case !errors.Is(err, checkpoint.ErrFenced):
			t.Error(err)
		}
		_ = o.Close(context.Background())
	}
	if committed != 1 {
		t.Errorf("%d of %d owners could commit", committed, len(owners))
	}
}

func savesAtOnce(t *testing.T, url string) {
	keepAll := checkpoint.Options{Retention: checkpoint.Retention{Last: checkpoint.KeepAll}}
	saved := make([]bool, 6)
	var wg sync.WaitGroup
	for i := range saved {
		task := taskOf(t, url, "t", keepAll)
		wg.Go(func() {
			_, err := task.Save(t.Context(), with(i, 20<<10), checkpoint.SaveOptions{})
			saved[i] = err == nil
			if err != nil && !errors.Is(err, checkpoint.ErrConflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	want := 0
	for _, ok := range saved {
		if ok {
			want++
		}
	}
	list, err := taskOf(t, url, "t", keepAll).List(t.Context())
	if err != nil || len(list) != want || want == 0 {
		t.Errorf("%d saves succeeded, history has %d, %v", want, len(list), err)
	}
}

func tasksOfAJob(t *testing.T, url string) {
	names := []string{"Partition 3", "a", "a-b", "a.b", "orders/7"}
	for _, name := range names {
		if _, err := taskOf(t, url, name, checkpoint.Options{}).Save(t.Context(), with(1, 20<<10), checkpoint.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	job := openJob(t, url, checkpoint.Options{})
	found := map[string]bool{}
	for task, err := range job.Tasks(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		found[task.Name()] = true
	}
	if len(found) != len(names) {
		t.Errorf("found %v, want %v", found, names)
	}
	if n := job.Stats().List.Calls; n != 1 {
		t.Errorf("took %d listings, want 1", n)
	}
}

func retentionDeletes(t *testing.T, url string) {
	opts := checkpoint.Options{Retention: checkpoint.Retention{Last: 2}}
	task := taskOf(t, url, "t", opts)
	o := claim(t, task)
	for n := range 5 {
		commit(t, o, with(n, 20<<10))
	}
	if err := o.Close(context.Background()); err != nil { // waits for the clean-up
		t.Fatal(err)
	}
	list, err := task.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%d checkpoints, %v", len(list), err)
	}
	for _, c := range list {
		fsys, err := c.FS(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fs.ReadFile(fsys, "s"); err != nil {
			t.Errorf("checkpoint %d: %v", c.Seq, err)
		}
	}
	if o.CleanupFailures() != 0 {
		t.Errorf("%d clean-ups failed", o.CleanupFailures())
	}
}
