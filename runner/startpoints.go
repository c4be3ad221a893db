package runner

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// startpoints are the orders of operators that a task goes by. Each is used once: the first
// checkpoint in which its partition made progress says that it was used, and then it is
// removed. Until that checkpoint whoever takes the task on uses it again.
type startpoints struct {
	task   *checkpoint.Task
	ids    map[string][]string // by partition: those that no checkpoint says were used
	used   []string            // the others: they are to be removed, and of no effect
	before map[string]string   // the offsets of the checkpoint that the task went on from

	stepped atomic.Bool // a step has succeeded since the task was opened
}

// usedLabel, among a checkpoint's labels, has the ids of startpoints that were used and may
// not be removed yet. Without it, an owner that dies between the commit and the removal
// would let the next one use them again.
const usedLabel = "runner.startpoints"

// loadStartpoints lists the startpoints of a task that goes on from checkpoint c, or from
// none. That takes one request if there are none. The last one of a partition counts.
func loadStartpoints(ctx context.Context, job *checkpoint.Job, name string, c *checkpoint.Checkpoint) (*startpoints, map[string]Start, error) {
	task, err := job.Task(name)
	if err != nil {
		return nil, nil, err
	}
	list, err := task.Startpoints(ctx)
	if err != nil {
		return nil, nil, err
	}
	var used []string
	if c != nil {
		used = strings.Fields(c.Labels[usedLabel])
	}
	s := &startpoints{task: task, ids: make(map[string][]string)}
	orders := make(map[string]Start)
	for _, p := range list {
		if slices.Contains(used, p.ID) {
			s.used = append(s.used, p.ID)
			continue
		}
		s.ids[p.Partition] = append(s.ids[p.Partition], p.ID)
		orders[p.Partition] = startOf(p)
	}
	return s, orders, nil
}

func startOf(p checkpoint.Startpoint) Start {
	s := Start{Offset: p.Offset, Time: p.Time, Startpoint: p.ID}
	switch p.At {
	case checkpoint.StartAtOldest:
		s.At = Oldest
	case checkpoint.StartAtNewest:
		s.At = Newest
	case checkpoint.StartAtOffset:
		s.At = Checkpointed
	case checkpoint.StartAtTime:
		s.At = AtTime
	}
	return s
}

// progressed returns the partitions with startpoints that have made progress in a cut. at are
// its offsets: the host's own, if it keeps them. Then one has moved that is not where it was
// before, or that a host which has asked where to begin gives after a step: it may have come
// back to where it was. Otherwise steps have advanced them.
func (s *startpoints) progressed(at map[string]string, hosts bool, steps *offsets, asked func(partition string) bool) []string {
	var list []string
	for partition := range s.ids {
		offset, ok := at[partition]
		before, had := s.before[partition]
		moved := ok && (!had || offset != before || s.stepped.Load() && asked(partition))
		if !hosts {
			moved = steps.advanced(partition)
		}
		if moved {
			list = append(list, partition)
		}
	}
	return list
}

// usedBy returns the ids of those that were used, if partitions have made progress.
func (s *startpoints) usedBy(progressed []string) []string {
	used := slices.Clone(s.used)
	for _, partition := range progressed {
		used = append(used, s.ids[partition]...)
	}
	return used
}

// removeStartpoints removes those that were used, now that the progress of partitions is
// committed. What cannot be removed is left for the next commit.
func (t *Task) removeStartpoints(ctx context.Context, progressed []string) {
	s := t.startpoints
	s.used = s.usedBy(progressed)
	for _, partition := range progressed {
		delete(s.ids, partition)
	}
	if len(s.used) == 0 {
		return
	}
	if err := s.task.RemoveStartpoints(ctx, s.used...); err != nil {
		t.runner.telemetry.failed(ctx, "startpoint")
		t.log.WarnContext(ctx, "startpoints that were used could not be removed; the next commit tries again", "startpoints", s.used, "err", err)
		return
	}
	t.log.InfoContext(ctx, "startpoints were used, and removed", "startpoints", s.used)
	s.used = nil
}
