package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
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
	opts := runner.RunOptions{
		Options: runner.Options{Interval: s.Interval, Logger: warnings},
		Job:     job, Dir: s.Dir,
		Spec: runner.Spec{Hooks: runner.Hooks{After: func(_ context.Context, c *checkpoint.Checkpoint) error {
			return texts.committed(c, announce)
		}}},
	}
	counters := make(map[string]*counter)
	for _, p := range texts.partitions {
		opts.Tasks = append(opts.Tasks, p.name)
		counters[p.name] = &counter{settings: s, corpus: texts, partition: p, announce: announce, spoil: spoil}
		announce(event{Op: resume, Task: p.name})
	}
	return runner.Run(ctx, opts, func(_ context.Context, task string, restored *runner.Restored) (runner.Worker, error) {
		return counters[task].open(restored)
	})
}

// A counter is one task.
type counter struct {
	settings
	corpus    *corpus
	partition *partition
	announce  announce
	spoil     spoiler

	state *state
	in    *reader
	told  int64 // how far it had counted when it last told
}

// A spoiler breaks a cut. Tests use it to see that the comparison fails.
type spoiler func(*runner.Cut)

// open goes on from the newest checkpoint, if there is one: the state as it was
// then, and the offset that belongs to it.
func (c *counter) open(restored *runner.Restored) (_ *counter, err error) {
	offset, seq := "", uint64(0)
	if newest := restored.Checkpoint; newest != nil {
		seq = newest.Seq
		if offset, err = c.corpus.offsetIn(newest, c.partition.name); err != nil {
			return nil, err
		}
	}
	if c.in, err = c.partition.read(offset); err != nil {
		return nil, err
	}
	if c.state, err = openState(restored.Dir(""), restored.Cuts); err != nil {
		return nil, err
	}
	c.tell(event{Op: resume, End: true, Seq: seq})
	c.tell(event{Op: count, At: c.in.before})
	return c, nil
}

// Process counts the next record when it has arrived.
func (c *counter) Process(ctx context.Context) error {
	if err := c.in.await(ctx, c.Start, c.Over); err != nil {
		return err
	}
	record, err := c.in.next()
	if errors.Is(err, io.EOF) && c.Open {
		return nil
	}
	if err != nil {
		return err
	}
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

// Prepare makes the next cut quicker, beside Process: the database waits for its flush.
func (c *counter) Prepare(ctx context.Context) error { return c.state.engine.Prepare(ctx) }

// Cut captures the state between two records, with the offset of the next one.
// These two must belong together: that is all that counting each record exactly
// once takes.
func (c *counter) Cut(ctx context.Context, _ string) (runner.Cut, error) {
	c.tell(event{Op: commit, At: c.in.before})
	c.tell(event{Op: cut})
	made, err := c.state.cut(ctx)
	if err != nil {
		return made, err
	}
	c.tell(event{Op: cut, End: true})
	made.Offsets = map[string]string{c.partition.name: c.in.offset()}
	made.Labels = map[string]string{"corpus": c.corpus.id}
	if c.spoil != nil {
		c.spoil(&made)
	}
	return made, nil
}

func (c *counter) Close() error { return errors.Join(c.in.close(), c.state.close()) }

// tell announces an event of this task.
func (c *counter) tell(e event) {
	e.Task = c.partition.name
	c.announce(e)
}

// committed announces a checkpoint that is durable. A job that acknowledges its
// input does so here.
func (c *corpus) committed(made *checkpoint.Checkpoint, announce announce) error {
	for _, p := range c.partitions {
		if p.name == made.Task {
			r, err := p.read(made.Offsets[p.name])
			if err != nil {
				return err
			}
			announce(event{Op: commit, End: true, Task: p.name, Seq: made.Seq, At: r.before})
		}
	}
	return nil
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
