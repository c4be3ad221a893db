package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/holdfast-io/holdfast/examples/internal/clicks"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
)

// A counter works on one partition. Its methods are called one at a time.
type counter struct {
	task  string
	tell  tell
	spoil spoiler
	state *clicks.State
	in    *reader
	ends  bool // the input ends, after the place until
	until uint64

	counted int       // events of the partition that come before in.next
	told    time.Time // when it has last said so
}

// A spoiler breaks a cut. Tests use it to see that the comparison fails.
type spoiler func(*runner.Cut)

// countedLabel is the label of a checkpoint with how many events of the partition it counts.
// The job does not need it: it is for people, and for the picture.
const countedLabel = "counted"

// openCounter goes on from what was restored: the state of a checkpoint, and the place in the
// stream that belongs to it. The broker does not know that place: it is told where to begin.
func openCounter(ctx context.Context, js jetstream.JetStream, s settings, task string, restored *runner.Restored, log *slog.Logger, tell tell, spoil spoiler) (_ *counter, err error) {
	partition, err := partitionOf(task)
	if err != nil {
		return nil, err
	}
	c := &counter{task: task, tell: tell, spoil: spoil}
	if s.Fixed {
		c.ends, c.until = true, s.Until[partition]
	}
	opened := note{Op: open, Task: task}
	if made := restored.Checkpoint; made != nil {
		opened.Seq = made.Seq
		if c.counted, err = strconv.Atoi(made.Labels[countedLabel]); err != nil {
			return nil, fmt.Errorf("checkpoint %d of %s: how many events it counts: %w", made.Seq, task, err)
		}
	}
	c.in = &reader{js: js, stream: s.Stream, subject: subjectOf(s.Stream, partition), log: log}
	if c.in.next, err = begin(ctx, js, s.Stream, task, restored); err != nil {
		return nil, err
	}
	if c.state, err = clicks.Open(restored.Dir(""), restored.Cuts); err != nil {
		return nil, err
	}
	opened.Counted = c.counted
	tell(opened)
	return c, nil
}

// begin returns where to begin to read a partition.
func begin(ctx context.Context, js jetstream.JetStream, stream, task string, restored *runner.Restored) (uint64, error) {
	s, err := js.Stream(ctx, stream) // it asks the broker
	if err != nil {
		return 0, err
	}
	first, next := s.CachedInfo().State.FirstSeq, s.CachedInfo().State.LastSeq+1
	start, err := restored.Start(task)
	if err != nil {
		return 0, err
	}
	if start.At == runner.Checkpointed {
		offset, err := strconv.ParseUint(start.Offset, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("offset %q of %s is no place in a stream: %w", start.Offset, task, err)
		}
		if first <= offset && offset <= next {
			return offset, nil
		}
		if start, err = restored.OutOfRange(task); err != nil {
			return 0, err
		}
	}
	switch start.At {
	case runner.Newest:
		return next, nil
	case runner.Oldest:
		return max(first, 1), nil
	}
	return 0, fmt.Errorf("%s cannot begin at %q: use an offset, the oldest or the newest event", task, start.At)
}

// tellEvery is how often a counter says how far it has come.
const tellEvery = 100 * time.Millisecond

// Process counts the next event, when it has arrived.
func (c *counter) Process(ctx context.Context) error {
	if c.ends && c.in.next > c.until {
		c.tell(note{Op: count, Task: c.task, Counted: c.counted})
		return io.EOF
	}
	msg, at, err := c.in.read(ctx)
	if err != nil || msg == nil {
		return err
	}
	if err := c.state.Add(msg.Data()); err != nil {
		return err
	}
	c.counted++
	if now := time.Now(); now.Sub(c.told) > tellEvery || at.NumPending == 0 {
		c.told = now
		c.tell(note{Op: count, Task: c.task, Counted: c.counted})
	}
	return nil
}

// Prepare makes the next cut quicker, beside Process: the database waits for its flush.
func (c *counter) Prepare(ctx context.Context) error { return c.state.Prepare(ctx) }

// Cut captures the state between two events, with the place of the next one in the stream.
// These two must belong together: that is all that counting each event exactly once takes.
func (c *counter) Cut(ctx context.Context, _ string) (runner.Cut, error) {
	began := time.Now()
	c.tell(note{Op: cut, Task: c.task})
	made, err := c.state.Cut(ctx)
	if err != nil {
		return made, err
	}
	made.Offsets = map[string]string{c.task: strconv.FormatUint(c.in.next, 10)}
	made.Labels = map[string]string{countedLabel: strconv.Itoa(c.counted)}
	made.Done = func(_ *checkpoint.Checkpoint, err error) {
		if errors.Is(err, checkpoint.ErrFenced) { // the store refused the commit
			c.tell(note{Op: fenced, Task: c.task})
		}
	}
	if c.spoil != nil {
		c.spoil(&made)
	}
	c.tell(note{Op: pause, Task: c.task, Took: time.Since(began)})
	return made, nil
}

func (c *counter) Close() error {
	c.in.close()
	err := c.state.Close()
	c.tell(note{Op: closed, Task: c.task})
	return err
}

// committed tells of a checkpoint that is durable. A job that acknowledges its input does so
// here.
func (t tell) committed(_ context.Context, c *checkpoint.Checkpoint) error {
	counted, err := strconv.Atoi(c.Labels[countedLabel])
	next, err2 := strconv.ParseUint(c.Offsets[c.Task], 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	t(note{Op: commit, Task: c.Task, Seq: c.Seq, Epoch: c.Epoch, Counted: counted, Next: next})
	return nil
}
