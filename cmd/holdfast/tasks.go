package main

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// tasksAtOnce is how many tasks of a job are worked on at a time. How many
// requests are under way is bounded for all of them together.
const tasksAtOnce = 4

// tasksOf returns the task with a name or, if name is empty, all tasks.
func tasksOf(ctx context.Context, job *checkpoint.Job, name string) ([]*checkpoint.Task, error) {
	if name != "" {
		task, err := job.Task(name)
		return []*checkpoint.Task{task}, err
	}
	var tasks []*checkpoint.Task
	for task, err := range job.Tasks(ctx) {
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, task)
	}
	return tasks, nil
}

// eachTask calls do for every task, several at a time. What fails for one task
// does not keep it from the others: do notes it in its line, of which eachTask
// returns one for each task, in their order.
func eachTask[Line any](tasks []*checkpoint.Task, do func(*checkpoint.Task) Line) []Line {
	lines := make([]Line, len(tasks))
	var group errgroup.Group
	group.SetLimit(tasksAtOnce)
	for i, task := range tasks {
		group.Go(func() error {
			lines[i] = do(task)
			return nil
		})
	}
	_ = group.Wait() // no call fails
	return lines
}

// taskOrNone returns the one optional argument.
func taskOrNone(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// firstFailure returns the first of n tasks' errors, and says how many more
// there are.
func firstFailure(n int, errOf func(int) error) error {
	var first error
	more := 0
	for i := range n {
		switch err := errOf(i); {
		case err == nil:
		case first == nil:
			first = err
		default:
			more++
		}
	}
	if more > 0 {
		return fmt.Errorf("%w (and %s failed)", first, counted(more, "other task", "other tasks"))
	}
	return first
}
