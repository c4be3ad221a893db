package runner

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// This file carries effects outside through a commit, in two phases. What a cut has prepared
// is part of its checkpoint. It is completed when that is committed, and once more by
// whoever goes on from that checkpoint, because nobody knows how far the one before has come.
// The next commit forgets it, so there is none before it is completed.

// Labels with what is to be completed, and of which task: a fork's first checkpoint is another
// task's, which completes it itself.
const (
	preparedLabel   = "runner.prepared"
	preparedOfLabel = "runner.prepared_of"
)

// maxPrepared bounds Cut.Prepared, in bytes: it travels in the manifest.
const maxPrepared = 16 << 10

// checkPrepared makes sure that what a cut has prepared can be completed.
func (t *Task) checkPrepared(c *Cut) error {
	switch {
	case len(c.Prepared) > maxPrepared:
		return backend.Invalidf("Cut.Prepared has %d bytes, and %d is the most: put it into the state, and prepare its name", len(c.Prepared), maxPrepared)
	case c.Prepared != "" && t.spec.Hooks.Complete == nil:
		return backend.Invalidf("the cut has prepared something, and nothing completes it: set Hooks.Complete")
	}
	return nil
}

// toComplete returns a checkpoint if something is to be completed that this task has prepared.
func (t *Task) toComplete(c *checkpoint.Checkpoint) *checkpoint.Checkpoint {
	if c == nil || c.Labels[preparedLabel] == "" || c.Labels[preparedOfLabel] != t.name {
		return nil
	}
	return c
}

// complete completes what the last checkpoint has prepared, unless that was done.
func (t *Task) complete(ctx context.Context) error {
	c := t.incomplete
	if c == nil {
		return nil
	}
	if t.spec.Hooks.Complete == nil {
		return backend.Invalidf("checkpoint %d has prepared something that was perhaps not completed, and the next one would forget: set Hooks.Complete", c.Seq)
	}
	began := time.Now()
	if err := guard("hook to complete a commit", func() error { return t.spec.Hooks.Complete(ctx, c, c.Labels[preparedLabel]) }); err != nil {
		return fmt.Errorf("what checkpoint %d has prepared is not completed: %w", c.Seq, err)
	}
	t.incomplete = nil
	t.runner.telemetry.phase(ctx, "complete", time.Since(began))
	return nil
}
