package main

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"github.com/holdfast-io/holdfast/bench/internal/records"
	"github.com/holdfast-io/holdfast/checkpoint"
	engine "github.com/holdfast-io/holdfast/engines/pebble"
	"github.com/holdfast-io/holdfast/runner"
)

// A job has one task, with its state in a database.
type job struct {
	checkpoints *checkpoint.Job
	runner      *runner.Runner
	task        *runner.Task
	log         *recorder

	engine *engine.Engine
	db     *records.DB
	steps  int
	cuts   atomic.Int64 // that were begun
}

// openJob makes this process the owner of the task, and fills the database if it has
// no checkpoint. hooks are told of what happens, besides the job's own.
func openJob(ctx context.Context, c *config, dir string, interval time.Duration, restored func(), after func()) (_ *job, err error) {
	j, err := newJob(ctx, c, runner.Options{Interval: interval})
	if err != nil {
		return nil, err
	}
	j.task, err = j.runner.Own(ctx, "load", j.spec(c, dir, restored, func(*checkpoint.Checkpoint) { after() }))
	if err != nil {
		return nil, errors.Join(err, j.checkpoints.Close(context.WithoutCancel(ctx)))
	}
	return j, nil
}

// newJob opens the place for checkpoints, and owns nothing yet.
func newJob(ctx context.Context, c *config, opts runner.Options) (*job, error) {
	j := &job{log: &recorder{}}
	place, err := c.store("load")
	if err != nil {
		return nil, err
	}
	j.checkpoints, err = checkpoint.Open(ctx, place, checkpoint.Options{Logger: j.log.logger(), Retention: checkpoint.Retention{Last: c.Keep}})
	if err != nil {
		return nil, err
	}
	opts.Logger = j.log.logger()
	if j.runner, err = runner.New(j.checkpoints, opts); err != nil {
		return nil, errors.Join(err, j.checkpoints.Close(context.WithoutCancel(ctx)))
	}
	return j, nil
}

func (j *job) spec(c *config, dir string, restored func(), after func(*checkpoint.Checkpoint)) runner.Spec {
	return runner.Spec{
		Dir: dir,
		Open: func(ctx context.Context, r *runner.Restored) (runner.Cutter, error) {
			restored()
			return j.open(ctx, c, r)
		},
		Hooks: runner.Hooks{
			Before: func(context.Context, *runner.Position) error { j.cuts.Add(1); return nil },
			After:  func(_ context.Context, c *checkpoint.Checkpoint) error { after(c); return nil },
		},
	}
}

func (j *job) open(ctx context.Context, c *config, r *runner.Restored) (_ runner.Cutter, err error) {
	cache := pebbledb.NewCache(c.cacheSize())
	defer cache.Unref()
	opts := &pebbledb.Options{Logger: quiet{pebbledb.DefaultLogger}, Cache: cache}
	opts.Levels[0].FilterPolicy = bloom.FilterPolicy(10) // of all levels: each cut adds a table to those that a Get looks at
	if j.engine, err = engine.Open(r.Dir(""), opts, r.Cuts); err != nil {
		return nil, err
	}
	seed := uint64(1)
	if r.Checkpoint != nil {
		seed += r.Checkpoint.Epoch
	}
	j.db = records.New(j.engine.DB, c.Size, seed)
	if r.IsNew("") {
		err = j.db.Fill(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, j.engine.Close())
	}
	return runner.Engines{"": j.engine}, nil
}

// step is one step of the job. It returns how long it had to wait for the gate.
func (j *job) step(ctx context.Context, work func() error) (waited time.Duration, err error) {
	began := time.Now()
	err = j.task.Step(ctx, func(p *runner.Position) error {
		waited = time.Since(began)
		if err := work(); err != nil {
			return err
		}
		j.steps++
		p.Advance("in", strconv.Itoa(j.steps))
		return nil
	})
	return waited, err
}

// close ends the job without a last commit.
func (j *job) close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	return errors.Join(j.task.Abandon(ctx), j.runner.Drain(ctx), j.checkpoints.Close(ctx))
}

// cacheSize is a sixteenth of the state.
func (c *config) cacheSize() int64 { return int64(c.Size) << 20 / 16 }

// hostDir is the run directory on one of the hosts.
func (c *config) hostDir(host string) string { return filepath.Join(c.Dir, "host-"+host) }

// quiet keeps Pebble's errors and drops its news.
type quiet struct{ pebbledb.Logger }

func (quiet) Infof(string, ...any) {}
