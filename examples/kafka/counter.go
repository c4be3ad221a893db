package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/holdfast-io/holdfast/examples/internal/clicks"
	"github.com/holdfast-io/holdfast/runner"
)

// A counter works on one partition. Its methods are called one at a time.
type counter struct {
	task   string
	member *member
	queue  *queue
	state  *clicks.State
	next   int64 // the offset to read next
	spoil  spoiler
}

// A spoiler breaks a cut. Tests use it to see that the comparison fails.
type spoiler func(*runner.Cut)

// openCounter goes on from what was restored: the state of a checkpoint, and the offset that
// belongs to it.
func openCounter(ctx context.Context, m *member, task string, restored *runner.Restored, spoil spoiler) (_ *counter, err error) {
	c := &counter{task: task, member: m, spoil: spoil}
	if c.next, err = m.begin(ctx, task, restored); err != nil {
		return nil, err
	}
	if c.state, err = clicks.Open(restored.Dir(""), restored.Cuts); err != nil {
		return nil, err
	}
	if c.queue, err = m.opened(task, c.next); err != nil {
		_ = c.state.Close() // nothing was counted
		return nil, err
	}
	if made := restored.Checkpoint; made != nil {
		m.tell("%s goes on from checkpoint %d, at offset %d", task, made.Seq, c.next)
	}
	return c, nil
}

// batch is how many records are counted at a time: a cut waits for them.
const batch = 100

// Process counts the next records, when there are any.
func (c *counter) Process(ctx context.Context) error {
	records, left, err := c.queue.take(ctx, batch)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Offset < c.next { // a gap is none: transactions and compaction leave some
			return fmt.Errorf("%s: the broker gave the record at offset %d, and %d is next: it would be counted twice", c.task, r.Offset, c.next)
		}
		if err := c.state.Add(r.Value); err != nil {
			return err
		}
		c.next = r.Offset + 1
	}
	if left < queueLimit/2 {
		c.member.drained(c.queue)
	}
	return nil
}

// Prepare makes the next cut quicker, beside Process.
func (c *counter) Prepare(ctx context.Context) error { return c.state.Prepare(ctx) }

// Cut captures the state between two records, with the offset of the next one.
func (c *counter) Cut(ctx context.Context, _ string) (runner.Cut, error) {
	made, err := c.state.Cut(ctx)
	if err != nil {
		return made, err
	}
	made.Offsets = map[string]string{c.task: strconv.FormatInt(c.next, 10)}
	if c.spoil != nil {
		c.spoil(&made)
	}
	return made, nil
}

func (c *counter) Close() error { return c.state.Close() }
