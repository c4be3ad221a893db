package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-io/holdfast/checkpoint"
	_ "github.com/holdfast-io/holdfast/local" // for file://
)

// exampleJob opens a job in a new directory. A real program has one URL in its
// configuration.
func exampleJob() (job *checkpoint.Job, work string, done func()) {
	dir, err := os.MkdirTemp("", "example-")
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "store"), 0o777)
	}
	if err == nil {
		job, err = checkpoint.Open(context.Background(), "file://"+filepath.ToSlash(dir)+"/store", checkpoint.Options{})
	}
	if err != nil {
		log.Fatal(err)
	}
	return job, filepath.Join(dir, "work"), func() { _ = errors.Join(job.Close(context.Background()), os.RemoveAll(dir)) }
}

// A program claims its task, resumes, and commits its state and offsets.
func Example() {
	ctx := context.Background()
	job, dir, done := exampleJob()
	defer done()

	for range 2 { // two lives of the program
		task, err := job.Task("orders/7")
		if err != nil {
			log.Fatal(err)
		}
		owner, err := task.Claim(ctx, checkpoint.ClaimOptions{})
		if err != nil {
			log.Fatal(err)
		}
		last, err := owner.Resume(ctx, dir) // dir is now as it was then, or empty
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("go on from offset %q\n", last.Offsets["orders/7"])

		if err := os.WriteFile(filepath.Join(dir, "total"), []byte("42"), 0o666); err != nil {
			log.Fatal(err)
		}
		if _, err := owner.Commit(ctx, checkpoint.Snapshot{
			State:   checkpoint.Dir(dir),
			Offsets: map[string]string{"orders/7": "4711"},
		}); err != nil {
			log.Fatal(err)
		}
		if err := errors.Join(owner.Release(ctx), owner.Close(ctx)); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// go on from offset ""
	// go on from offset "4711"
}

// A savepoint is kept until it expires. A task can be rolled back to it.
func ExampleTask_Rollback() {
	ctx := context.Background()
	job, _, done := exampleJob()
	defer done()
	task, err := job.Task("orders/7")
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range []checkpoint.Snapshot{
		{Offsets: map[string]string{"orders/7": "100"}, Savepoint: "before upgrade"},
		{Offsets: map[string]string{"orders/7": "200"}},
	} {
		if _, err := task.Save(ctx, s, checkpoint.SaveOptions{}); err != nil {
			log.Fatal(err)
		}
	}
	back, err := task.Rollback(ctx, checkpoint.Savepoint("before upgrade"), checkpoint.RollbackOptions{})
	if err != nil {
		log.Fatal(err)
	}
	latest, err := task.Latest(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(back.Seq == latest.Seq, latest.Offsets["orders/7"])
	// Output:
	// true 100
}

// Files of a checkpoint can be read without restoring it.
func ExampleCheckpoint_FS() {
	ctx := context.Background()
	job, _, done := exampleJob()
	defer done()
	task, err := job.Task("orders/7")
	if err != nil {
		log.Fatal(err)
	}
	made, err := task.Save(ctx, checkpoint.Snapshot{State: checkpoint.Stream("counts.csv", strings.NewReader("apples,3\n"))}, checkpoint.SaveOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fsys, err := made.FS(ctx)
	if err != nil {
		log.Fatal(err)
	}
	data, err := fs.ReadFile(fsys, "counts.csv")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", data)
	// Output:
	// apples,3
}
