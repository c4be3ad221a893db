package runner

import (
	"context"
	"errors"
	"strings"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// All that the runner asks of package checkpoint is in this file.

// claim claims a task: if ifEpoch is not nil, only if that is still its epoch.
func claim(ctx context.Context, job *checkpoint.Job, task string, ifEpoch *uint64) (*checkpoint.Owner, error) {
	t, err := job.Task(task)
	if err != nil {
		return nil, err
	}
	return t.Claim(ctx, checkpoint.ClaimOptions{IfEpoch: ifEpoch})
}

// checkName reports what is wrong with the name of a task.
func checkName(job *checkpoint.Job, task string) error {
	_, err := job.Task(task)
	return err
}

// newest returns the checkpoint that the owner goes on from, or nil if there is
// none.
func newest(ctx context.Context, o *checkpoint.Owner) (*checkpoint.Checkpoint, error) {
	c, err := o.Checkpoint(ctx)
	if errors.Is(err, checkpoint.ErrNoCheckpoint) {
		return nil, nil
	}
	return c, err
}

// settle finds out what came of a commit that is in doubt, and makes sure that the
// task is still the owner's. Its error is checkpoint.ErrUnsettled if the outcome is
// still not known, and checkpoint.ErrFenced if another has claimed the task.
func settle(ctx context.Context, o *checkpoint.Owner) error { return o.Check(ctx) }

// sizes returns the stores in a checkpoint, and the size of each in bytes. file is one
// that is in none of them, if there is such.
func sizes(ctx context.Context, c *checkpoint.Checkpoint) (stores map[string]int64, file string, err error) {
	entries, err := c.Entries(ctx)
	if err != nil {
		return nil, "", err
	}
	stores = make(map[string]int64)
	for _, e := range entries {
		name, _, below := strings.Cut(e.Path, "/")
		switch {
		case e.Path == ".":
		case !below && !e.Mode.IsDir():
			file = e.Path
		default:
			stores[name] += e.Size
		}
	}
	return stores, file, nil
}

// restore makes dir what the checkpoint has of a store; "" is all of it. A task is never
// opened on a directory that was not restored just before, so dir need not outlive a loss
// of power.
func restore(ctx context.Context, c *checkpoint.Checkpoint, store, dir string, progress func(checkpoint.Progress)) error {
	return c.Restore(ctx, dir, checkpoint.RestoreOptions{Replace: true, Transient: true, Sub: store, Progress: progress})
}

// join is the state of named stores as one source; a single store "" is itself.
func join(stores map[string]checkpoint.Source) checkpoint.Source {
	if one, ok := stores[""]; ok || len(stores) == 0 {
		return one
	}
	return checkpoint.Join(stores)
}

// usage is what the job has asked of its store, by verb.
func usage(job *checkpoint.Job) map[string]verbUse {
	s := job.Stats()
	return map[string]verbUse{"create": s.Create, "put": s.Put, "get": s.Get, "list": s.List, "delete": s.Delete}
}

type verbUse = backend.Count
