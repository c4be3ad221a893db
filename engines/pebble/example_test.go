package pebble_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"

	_ "github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	engine "github.com/holdfast-io/holdfast/engines/pebble"
)

// A job counts records, is checkpointed while it goes on, and is continued by
// another one, which knows nothing of what came after the checkpoint.
func Example() {
	ctx := context.Background()
	hosts, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(hosts)
	job, err := checkpoint.Open(ctx, "mem://example", checkpoint.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer job.Close(context.Background())
	for _, host := range []string{"first", "second"} {
		if err := work(ctx, job, filepath.Join(hosts, host)); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// begins
	// goes on from 100
}

// work is one life of the job, on a host whose directory is run.
func work(ctx context.Context, job *checkpoint.Job, run string) error {
	task, err := job.Task("orders/7")
	if err != nil {
		return err
	}
	owner, err := task.Claim(ctx, checkpoint.ClaimOptions{})
	if err != nil {
		return err
	}
	defer owner.Close(ctx)
	dir := filepath.Join(run, "state")
	if _, err := owner.Resume(ctx, dir); err != nil {
		return err
	}
	e, err := engine.Open(dir, &pebble.Options{Logger: quiet{}}, filepath.Join(run, "cuts"))
	if err != nil {
		return err
	}
	defer e.Close()

	value, closer, err := e.DB.Get([]byte("count"))
	switch {
	case err == nil:
		fmt.Printf("goes on from %s\n", value)
		err = closer.Close()
	case errors.Is(err, pebble.ErrNotFound):
		fmt.Println("begins")
		err = nil
	}
	if err != nil {
		return err
	}
	if err := e.DB.Set([]byte("count"), []byte("100"), pebble.NoSync); err != nil {
		return err
	}
	src, remove, err := e.Cut(ctx) // between two records
	if err != nil {
		return err
	}
	committed := make(chan error)
	go func() {
		_, err := owner.Commit(ctx, checkpoint.Snapshot{Offsets: map[string]string{"orders/7": "101"}, State: src})
		committed <- errors.Join(err, remove())
	}()
	err = e.DB.Set([]byte("count"), []byte("101"), pebble.NoSync) // the job goes on
	return errors.Join(err, <-committed)
}

// quiet keeps Pebble from logging what it does.
type quiet struct{}

func (quiet) Infof(string, ...any)              {}
func (quiet) Errorf(format string, args ...any) { log.Printf(format, args...) }
func (quiet) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }
