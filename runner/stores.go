package runner

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A part is one store to be restored, or to begin empty.
type part struct {
	store string
	isNew bool
	size  int64
}

// plan decides what becomes of each store, in the order in which they are restored.
func (t *Task) plan(ctx context.Context, c *checkpoint.Checkpoint) ([]part, error) {
	found, err := t.storesIn(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := t.checkDropped(c, found); err != nil {
		return nil, err
	}
	if len(t.spec.Stores) == 0 {
		size, ok := found[""]
		return []part{{"", !ok, size}}, nil
	}
	var plan []part
	for _, store := range t.spec.Stores {
		size, ok := found[store]
		plan = append(plan, part{store, !ok, size})
	}
	if !t.spec.InOrder {
		slices.SortStableFunc(plan, func(a, b part) int { return cmp.Compare(a.size, b.size) })
	}
	return plan, nil
}

// storesLabel, among a checkpoint's labels, has the names of its stores. Without it
// nothing tells a state of stores from one that has directories.
const storesLabel = "runner.stores"

// label returns the labels of a cut, with the names of the task's stores, with what it has
// prepared, and with the ids of startpoints that were used.
func (t *Task) label(c *Cut, used []string) map[string]string {
	labels := make(map[string]string)
	for name, value := range c.Labels {
		if !strings.HasPrefix(name, "runner.") { // those of a checkpoint that the host has read, say
			labels[name] = value
		}
	}
	if len(t.spec.Stores) > 0 {
		labels[storesLabel] = strings.Join(slices.Sorted(slices.Values(t.spec.Stores)), "/")
	}
	if c.Prepared != "" {
		labels[preparedLabel], labels[preparedOfLabel] = c.Prepared, t.name
	}
	if len(used) > 0 {
		labels[usedLabel] = strings.Join(used, " ")
	}
	return labels
}

// storesIn returns the stores in a checkpoint, and the size of each in bytes; "" is a
// state without names. A checkpoint that does not name its stores was not made by a
// Runner, or by one whose task had none: if this task has some, each directory is one.
func (t *Task) storesIn(ctx context.Context, c *checkpoint.Checkpoint) (map[string]int64, error) {
	named := c != nil && c.Labels[storesLabel] != ""
	switch {
	case c == nil:
		return nil, nil
	case !named && len(t.spec.Stores) == 0:
		return map[string]int64{"": c.Bytes}, nil
	}
	stores, files, err := sizes(ctx, c)
	if err == nil && files != "" {
		err = backend.Invalidf("checkpoint %d has a state without stores (there is a file %q beside them), and Spec.Stores names some: "+
			"leave it empty, or give the new stores to another task", c.Seq, files)
	}
	return stores, err
}

// checkDropped makes sure that every store in the checkpoint is restored, or
// dropped on purpose.
func (t *Task) checkDropped(c *checkpoint.Checkpoint, found map[string]int64) error {
	var lost []string
	for store := range found {
		if store != "" && !slices.Contains(t.spec.Stores, store) && !slices.Contains(t.spec.Dropped, store) {
			lost = append(lost, store)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	slices.Sort(lost)
	return backend.Invalidf("checkpoint %d has stores that the task does not name, and the next one would lose: %s; "+
		"add them to Spec.Stores or, if they are to go, to Spec.Dropped", c.Seq, strings.Join(lost, ", "))
}
