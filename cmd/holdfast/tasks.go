package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
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

// eachTask calls do for every task, several at a time, and shows how far it has come. What
// fails for one task does not keep it from the others: do notes it in its line, of which
// eachTask returns one for each task, in their order.
func eachTask[Line any](p *program, doing string, tasks []*checkpoint.Task, do func(*checkpoint.Task) Line) []Line {
	done, stop := p.followTasks(doing, len(tasks))
	defer stop()
	lines := make([]Line, len(tasks))
	var group errgroup.Group
	group.SetLimit(tasksAtOnce)
	for i, task := range tasks {
		group.Go(func() error {
			lines[i] = do(task)
			done()
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

// taskOrAll returns the arguments of a command that is for one task or, with --all-tasks,
// for all of them: name is empty then.
func (p *program) taskOrAll(cmd *cobra.Command, args []string, all bool) (url, name string, err error) {
	what := "TASK"
	if all {
		what = "[TASK]"
	}
	url, args, err = p.arguments(cmd, args, what)
	if err == nil && all && len(args) > 0 {
		err = wrongUsage(cmd, "--all-tasks and a TASK: give one of them")
	}
	return url, taskOrNone(args), err
}

// firstFailure returns the first of n tasks' errors. It mentions the others in notes, and
// says how many there are.
func (p *program) firstFailure(n int, errOf func(int) error) error {
	var first error
	more := 0
	for i := range n {
		switch err := errOf(i); {
		case err == nil:
		case first == nil:
			first = err
		default:
			more++
			p.note("%s", oneLine(err.Error()))
		}
	}
	if more > 0 {
		return fmt.Errorf("%w (and %s failed)", first, counted(more, "other task", "other tasks"))
	}
	return first
}
