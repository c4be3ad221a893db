package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/bench/internal/records"
	"github.com/holdfast-io/holdfast/checkpoint"
	engine "github.com/holdfast-io/holdfast/engines/pebble"
)

// changedPart is which part of the records changes: one in so many.
const changedPart = 100

// An ownedTask is a task in the store, of which this program is the owner.
type ownedTask struct {
	job   *checkpoint.Job
	owner *checkpoint.Owner
}

func openTask(ctx context.Context, c config, name string) (*ownedTask, error) {
	store := filepath.Join(c.dir, "store")
	if err := os.MkdirAll(store, 0o777); err != nil {
		return nil, err
	}
	job, err := checkpoint.Open(ctx, "file://"+filepath.ToSlash(store), checkpoint.Options{Retention: checkpoint.Retention{Last: 1}})
	if err != nil {
		return nil, err
	}
	task, err := job.Task(name)
	if err != nil {
		return nil, errors.Join(err, job.Close(context.WithoutCancel(ctx)))
	}
	owner, err := task.Claim(ctx, checkpoint.ClaimOptions{})
	if err != nil {
		return nil, errors.Join(err, job.Close(context.WithoutCancel(ctx)))
	}
	return &ownedTask{job, owner}, nil
}

func (t *ownedTask) close(ctx context.Context) error {
	return errors.Join(t.owner.Close(ctx), t.job.Close(context.WithoutCancel(ctx)))
}

// sent returns the bytes that went to the store so far.
func (t *ownedTask) sent() int64 {
	u := t.job.Stats()
	return u.Create.Bytes + u.Put.Bytes
}

// measureCommits commits one cut, and another one after a hundredth of the
// records were overwritten, to two tasks.
func measureCommits(ctx context.Context, c config, e *engine.Engine, s *records.DB) (err error) {
	fmt.Printf("Commit after %d of %d records were overwritten:\n\n", s.Records/changedPart, s.Records)
	fmt.Println("| tables are | ms | MiB read | MiB sent | MiB in the cut |")
	fmt.Println("| --- | --: | --: | --: | --: |")
	rows := []struct {
		name    string
		declare func(checkpoint.Source) checkpoint.Source
	}{
		{"known by their time (engines/pebble)", func(s checkpoint.Source) checkpoint.Source { return s.WriteOnce("*.sst", "*.blob") }},
		{"files like others", func(s checkpoint.Source) checkpoint.Source { return s }},
	}
	var tasks []*ownedTask
	defer func() {
		for _, t := range tasks {
			err = errors.Join(err, t.close(ctx))
		}
	}()
	// Compactions that are under way would add to what is new.
	if err := e.DB.Compact(ctx, []byte{0}, bytes.Repeat([]byte{0xff}, 17), true); err != nil {
		return err
	}
	cut := filepath.Join(c.dir, "cut")
	for round := range 2 {
		if err := errors.Join(e.DB.Flush(), e.DB.Checkpoint(cut)); err != nil {
			return err
		}
		for n, row := range rows {
			if round == 0 {
				t, err := openTask(ctx, c, fmt.Sprint("commit-", n))
				if err != nil {
					return err
				}
				tasks = append(tasks, t)
			}
			files := &countingFS{FS: os.DirFS(cut)}
			began, before := time.Now(), tasks[n].sent()
			made, err := tasks[n].owner.Commit(ctx, checkpoint.Snapshot{State: row.declare(checkpoint.FS(files))})
			if err != nil {
				return err
			}
			if round == 1 {
				fmt.Printf("| %s | %.0f | %.1f | %.1f | %.1f |\n", row.name, ms(time.Since(began)), mib(files.read.Load()), mib(tasks[n].sent()-before), mib(made.Bytes))
			}
		}
		if err := os.RemoveAll(cut); err != nil {
			return err
		}
		if err := s.Overwrite(int(s.Records / changedPart)); err != nil {
			return err
		}
	}
	return nil
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// countingFS counts the bytes that are read.
type countingFS struct {
	fs.FS
	read atomic.Int64
}

func (c *countingFS) Open(name string) (fs.File, error) {
	f, err := c.FS.Open(name)
	if dir, ok := f.(fs.ReadDirFile); ok && err == nil {
		return &countingFile{dir, c}, nil
	}
	return f, err
}

type countingFile struct {
	fs.ReadDirFile
	in *countingFS
}

func (f *countingFile) Read(p []byte) (int, error) {
	n, err := f.ReadDirFile.Read(p)
	f.in.read.Add(int64(n))
	return n, err
}
