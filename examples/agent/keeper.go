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

	log    *slog.Logger
	commit func(context.Context) (*checkpoint.Checkpoint, error)
	ended  <-chan struct{} // when the task can commit no more

	saved  chan *checkpoint.Checkpoint // has the newest that was made, until next takes it
	stop   context.CancelFunc          // ends the watch
	failed chan error                  // what the watch ended with
}

// keep restores the latest checkpoint of a task to its workspace, and saves that from then
// on when nothing was written to it for so long.
func keep(ctx context.Context, job *checkpoint.Job, url, at, task string, quiet time.Duration, log *slog.Logger) (*keeper, error) {
	r, err := runner.New(job, runner.Options{Interval: runner.Manual, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	k := &keeper{path: filepath.Join(at, "workspaces", task), runner: r, log: log, saved: make(chan *checkpoint.Checkpoint, 1), failed: make(chan error, 1)}
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
	k.commit, k.ended = k.task.Commit, k.task.Done()
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

// watch commits when the workspace has changed, and then was the same for so long. A commit that
// failed is made again after that time, until the task has ended.
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
		c, err := k.commit(ctx)
		switch {
		case err == nil:
			saved = now
			k.tell(c)
		case k.hasEnded():
			return err
		case ctx.Err() == nil:
			k.log.Warn("the workspace could not be saved; it is tried again", "path", k.path, "after", quiet, "err", err)
			since = time.Now()
		}
	}
}

func (k *keeper) hasEnded() bool {
	select {
	case <-k.ended:
		return true
	default:
		return false
	}
}

// tell puts a checkpoint where next finds it, in place of an older one that nobody took.
func (k *keeper) tell(c *checkpoint.Checkpoint) {
	select {
	case <-k.saved:
	default:
	}
	k.saved <- c
}

// next waits for the newest checkpoint that it has not returned yet.
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
