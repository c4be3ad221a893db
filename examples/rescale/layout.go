package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// partitions is how many the input has. It does not change: a task has some of them, and its
// state is in parts, one for each.
const partitions = 12

// A layout says which task has which partitions.
type layout struct {
	tasks int
	from  int // how many tasks there were before; 0 if none
}

// names are the job's tasks. The number of all is part of a name, so that those of two
// layouts are different tasks.
func (l layout) names() []string {
	names := make([]string, l.tasks)
	for i := range names {
		names[i] = l.taskOf(i)
	}
	return names
}

func (l layout) taskOf(partition int) string {
	return fmt.Sprintf("words/%d of %d", partition%l.tasks, l.tasks)
}

// partitionsOf are those of a task.
func (l layout) partitionsOf(task string) []int {
	var of []int
	for p := range partitions {
		if l.taskOf(p) == task {
			of = append(of, p)
		}
	}
	return of
}

// sources are the old tasks' checkpoints in which the partitions of a new task are.
func (l layout) sources(ctx context.Context, job *checkpoint.Job, task string) (map[int]*checkpoint.Checkpoint, error) {
	byTask, sources := make(map[string]*checkpoint.Checkpoint), make(map[int]*checkpoint.Checkpoint)
	for _, p := range l.partitionsOf(task) {
		old := layout{tasks: l.from}.taskOf(p)
		if byTask[old] == nil {
			c, err := latest(ctx, job, old)
			if err != nil {
				return nil, fmt.Errorf("partition %d for task %q: %w", p, task, err)
			}
			byTask[old] = c
		}
		sources[p] = byTask[old]
	}
	return sources, nil
}

// originLabel is the label of a task's first checkpoint that names its sources.
const originLabel = "rescaled-from"

func (l layout) origin(ctx context.Context, job *checkpoint.Job, task string) (string, error) {
	sources, err := l.sources(ctx, job, task)
	return describe(sources), err
}

func describe(sources map[int]*checkpoint.Checkpoint) string {
	var names []string
	for _, c := range sources {
		names = append(names, fmt.Sprintf("%s @ %d", c.Task, c.Seq))
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

func latest(ctx context.Context, job *checkpoint.Job, task string) (*checkpoint.Checkpoint, error) {
	t, err := job.Task(task)
	if err != nil {
		return nil, err
	}
	return t.Latest(ctx)
}

// firstOf returns the oldest checkpoint of a task.
func firstOf(ctx context.Context, job *checkpoint.Job, task string) (*checkpoint.Checkpoint, error) {
	t, err := job.Task(task)
	if err != nil {
		return nil, err
	}
	all, err := t.List(ctx)
	if err != nil {
		return nil, err
	}
	return slices.MinFunc(all, func(a, b *checkpoint.Checkpoint) int { return cmp.Compare(a.Seq, b.Seq) }), nil
}

// fence claims each old task, and releases it: a process of its own that is still there
// cannot commit any more, so what its latest checkpoint is does not change.
func fence(ctx context.Context, job *checkpoint.Job, tasks int) error {
	for _, name := range (layout{tasks: tasks}).names() {
		t, err := job.Task(name)
		if err != nil {
			return err
		}
		owner, err := t.Claim(ctx, checkpoint.ClaimOptions{})
		if err != nil {
			return err
		}
		if err := owner.Release(ctx); err != nil {
			return err
		}
	}
	return nil
}
