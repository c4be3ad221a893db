package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/engines/dir"
	"github.com/holdfast-io/holdfast/runner"
)

// A keeper keeps one workspace, as a task of the job.
type keeper struct {
	path   string // of the workspace
	runner *runner.Runner
	task   *runner.Task

	saved  chan *checkpoint.Checkpoint // each that was made
	stop   context.CancelFunc          // ends the watch
	failed chan error                  // what the watch ended with
}

// keep restores the latest checkpoint of a task to its workspace, and saves that from then
// on when nothing was written to it for so long.
func keep(ctx context.Context, job *checkpoint.Job, url, at, task string, quiet time.Duration) (*keeper, error) {
	r, err := runner.New(job, runner.Options{Interval: runner.Manual, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	k := &keeper{path: filepath.Join(at, "workspaces", task), runner: r, saved: make(chan *checkpoint.Checkpoint, 1), failed: make(chan error, 1)}
	k.task, err = r.Own(ctx, task, runner.Spec{
		Dir:   filepath.Join(at, "run", task),
		State: &runner.StateDir{Path: k.path, Job: url},
		Open: func(_ context.Context, restored *runner.Restored) (runner.Cutter, error) {
			e, err := dir.Open(restored.Dir(""), restored.Cuts, dir.Options{})
			return runner.Engines{"": e}, err
		},
	})
	if err != nil {
		return nil, err
	}
	before, err := look(k.path)
	if err != nil {
		return nil, errors.Join(err, k.task.Abandon(ctx))
	}
	watched, stop := context.WithCancel(ctx)
	k.stop = stop
	go func() { k.failed <- k.watch(watched, before, quiet) }()
	return k, nil
}

// looks is how often a keeper looks at its workspace in the time of quiet.
const looks = 10

// watch commits when the workspace has changed, and then was the same for so long.
func (k *keeper) watch(ctx context.Context, saved fingerprint, quiet time.Duration) error {
	clock := time.NewTicker(quiet / looks)
	defer clock.Stop()
	last, since := saved, time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-clock.C:
		}
		now, err := look(k.path)
		if err != nil {
			return err
		}
		if now != last {
			last, since = now, time.Now()
		}
		if now == saved || time.Since(since) < quiet {
			continue
		}
		c, err := k.task.Commit(ctx)
		if err != nil {
			return err
		}
		saved = now
		select {
		case k.saved <- c:
		case <-ctx.Done():
			return nil
		}
	}
}

// next waits for the next checkpoint.
func (k *keeper) next(ctx context.Context) (*checkpoint.Checkpoint, error) {
	select {
	case c := <-k.saved:
		return c, nil
	case err := <-k.failed:
		k.failed <- err // for close
		return nil, errors.Join(errors.New("the workspace is not kept any more"), err)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// close ends the keeping. What was written since the last checkpoint is not saved.
func (k *keeper) close(ctx context.Context) error {
	k.stop()
	return errors.Join(<-k.failed, k.task.ReleaseAsIs(ctx), k.runner.Drain(ctx))
}
