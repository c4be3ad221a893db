package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// countWords is the job. Each partition is counted by a task of its own, which
// has its own goroutine, state and history of checkpoints.
func countWords(ctx context.Context, s settings, announce announce, spoil spoiler) error {
	texts, err := findTexts(s.Paths)
	if err != nil {
		return err
	}
	store, err := backend.Open(ctx, s.URL)
	if err != nil {
		return err
	}
	// A host that does not announce what it does calls checkpoint.Open.
	// What killed lives have left is told of when it is deleted: here, each time.
	warnings := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	job, err := checkpoint.New(observed{store, announce}, checkpoint.Options{Logger: warnings})
	if err != nil {
		return err
	}
	defer func() { _ = job.Close(context.WithoutCancel(ctx)) }()
	// What an earlier process left in the working directory died with it.
	if err := os.RemoveAll(s.Dir); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, p := range texts.partitions {
		c := &counter{
			settings: s, corpus: texts, partition: p,
			dir:      filepath.Join(s.Dir, fmt.Sprint(i)),
			announce: announce, spoil: spoil,
		}
		group.Go(func() error { return c.run(ctx, job) })
	}
	return group.Wait()
}

// A counter is one task. The goroutine that runs it reads, counts and cuts;
// another one commits what was cut, while counting goes on.
type counter struct {
	settings
	corpus    *corpus
	partition *partition
	dir       string
	announce  announce
	spoil     spoiler

	owner *checkpoint.Owner
	state *state
	in    *reader

	saved      string     // the offset of the last checkpoint
	committing chan error // gives the outcome of the commit under way; nil if there is none
	told       int64      // how far it had counted when it last told
}

// A spoiler breaks a snapshot. Tests use it to see that the comparison fails.
type spoiler func(*checkpoint.Snapshot)

func (c *counter) run(ctx context.Context, job *checkpoint.Job) (err error) {
	if err := c.claim(ctx, job); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.owner.Close(ctx)) }()
	if err := c.resume(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.in.close(), c.state.close()) }()
	err = c.count(ctx)
	if err == nil {
		err = c.checkpoint(ctx)
	}
	if err := errors.Join(err, c.settle()); err != nil {
		return err
	}
	return c.owner.Release(ctx)
}

// claim makes this process the task's owner. An earlier owner that still runs
// somewhere can commit nothing from here on.
func (c *counter) claim(ctx context.Context, job *checkpoint.Job) (err error) {
	c.tell(event{Op: claim})
	task, err := job.Task(c.partition.name)
	if err != nil {
		return err
	}
	if c.owner, err = task.Claim(ctx, checkpoint.ClaimOptions{}); err != nil {
		return err
	}
	c.tell(event{Op: claim, End: true})
	return nil
}

// resume goes back to the newest checkpoint, if there is one: the state as it
// was then, and the offset that belongs to it.
func (c *counter) resume(ctx context.Context) error {
	dir := filepath.Join(c.dir, "state")
	c.tell(event{Op: restore})
	newest, err := c.owner.Resume(ctx, dir)
	if err != nil {
		return err
	}
	c.tell(event{Op: restore, End: true, Seq: newest.Seq})
	if newest.Seq > 0 {
		c.saved, err = c.corpus.offsetIn(newest, c.partition.name)
	}
	if err != nil {
		return err
	}
	if c.in, err = c.partition.read(c.saved); err != nil {
		return err
	}
	c.state, err = openState(dir)
	c.tell(event{Op: count, At: c.in.before})
	return err
}

// count reads the partition to its end, and checkpoints on the way.
func (c *counter) count(ctx context.Context) error {
	tick := time.NewTicker(c.Interval)
	defer tick.Stop()
	for {
		if err := c.in.await(ctx, c.Start, c.Over); err != nil {
			return err
		}
		record, err := c.in.next()
		switch {
		case errors.Is(err, io.EOF) && !c.Open:
			return c.settle()
		case errors.Is(err, io.EOF):
			err = nil
		case err == nil:
			err = c.add(record)
		}
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
			if c.committing == nil { // otherwise the store is slow, and the next tick will do
				err = c.checkpoint(ctx)
			}
		case err = <-c.committing:
			c.committing = nil
		default:
		}
		if err != nil {
			return err
		}
	}
}

func (c *counter) add(record []byte) error {
	for word := range words(record) {
		if err := c.state.add(word); err != nil {
			return err
		}
	}
	if c.in.before-c.told >= 8<<10 {
		c.told = c.in.before
		c.tell(event{Op: count, At: c.told})
	}
	return nil
}

// checkpoint cuts the state between two records, and has it committed with
// the offset of the next one. These two must belong together: that is all that
// counting each record exactly once takes.
func (c *counter) checkpoint(ctx context.Context) error {
	offset, at := c.in.offset(), c.in.before
	if offset == c.saved {
		return nil
	}
	dir := filepath.Join(c.dir, "cut")
	c.tell(event{Op: commit, At: at})
	c.tell(event{Op: cut})
	if err := c.state.cut(dir); err != nil {
		return err
	}
	c.tell(event{Op: cut, End: true})
	snapshot := checkpoint.Snapshot{
		Offsets: map[string]string{c.partition.name: offset},
		Labels:  map[string]string{"corpus": c.corpus.id},
		State:   checkpoint.Dir(dir).Immutable("*.sst"), // what was saved before is not read again
	}
	if c.spoil != nil {
		c.spoil(&snapshot)
	}
	c.saved = offset
	c.committing = make(chan error, 1)
	go func() {
		made, err := c.owner.Commit(ctx, snapshot)
		if err == nil {
			c.tell(event{Op: commit, End: true, Seq: made.Seq, At: at})
		}
		c.committing <- errors.Join(err, os.RemoveAll(dir))
	}()
	return nil
}

// settle waits for the commit under way, if there is one.
func (c *counter) settle() error {
	if c.committing == nil {
		return nil
	}
	err := <-c.committing
	c.committing = nil
	return err
}

// tell announces an event of this task.
func (c *counter) tell(e event) {
	e.Task = c.partition.name
	c.announce(e)
}

// offsetIn returns the offset that a task's checkpoint holds, provided that it
// is a checkpoint of these texts.
func (c *corpus) offsetIn(made *checkpoint.Checkpoint, task string) (string, error) {
	if was := made.Labels["corpus"]; was != c.id {
		return "", fmt.Errorf("the job at this URL counts other texts (corpus %q, not %q); use another --checkpoint URL for these", was, c.id)
	}
	offset, ok := made.Offsets[task]
	if !ok {
		return "", fmt.Errorf("checkpoint %d of %s has no offset", made.Seq, task)
	}
	return offset, nil
}
