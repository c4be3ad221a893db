package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) rmCommand() *cobra.Command {
	var opts checkpoint.DeleteOptions
	all := false
	cmd := &cobra.Command{
		Use:   "rm URL TASK",
		Short: "Delete a task with all its checkpoints",
		Long: `Delete TASK: all its checkpoints, savepoints among them. IT CANNOT BE UNDONE. With
--all-tasks, and no TASK, delete every task of the job.

A task that is claimed is refused, because its owner may still run. With --take-over
it is deleted all the same, and its owner is fenced. A task whose data forks need is
refused; delete them first, or with --all-tasks all of them together.

One small object stays, which says that the task was deleted: a task of the same name
may be made again, and its numbers go on. What is younger than an hour of the other
manifests goes with a later 'holdfast gc'.`,
		Example: `  holdfast rm file:///var/lib/orders try/7
  holdfast rm file:///var/lib/orders --all-tasks --dry-run`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, name, err := p.taskOrAll(cmd, args, all)
			if err != nil {
				return err
			}
			return p.rm(cmd.Context(), url, name, opts)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&all, "all-tasks", false, "delete every task of the job")
	f.BoolVar(&opts.DryRun, "dry-run", false, "delete nothing, and say what would be deleted")
	f.BoolVar(&opts.Fence, "take-over", false, "do so although a task is claimed: its owner is fenced")
	p.output(cmd)
	return cmd
}

func (p *program) rm(ctx context.Context, url, name string, opts checkpoint.DeleteOptions) error {
	return p.withJob(ctx, url, checkpoint.Retention{}, func(job *checkpoint.Job) error {
		tasks, err := tasksOf(ctx, job, name)
		if err != nil {
			return err
		}
		if len(tasks) == 0 { // a URL with a slip in it must not pass for a job that is gone
			none := said{"nothing was deleted: there never was a task under " + url, checkpoint.ErrNoCheckpoint}
			return advice{none, "correct the URL"}
		}
		lines := deleteTasks(ctx, p, tasks, opts)
		if name != "" && lines[0].err != nil && !lines[0].gone {
			return absent(ctx, tasks[0], lines[0].err)
		}
		if name == "" {
			lines = existing(lines)
		}
		if len(lines) == 0 && !p.asJSON {
			p.note("%s before", deletedTasks(url, ""))
		}
		p.noteVersions(job)
		if err := p.printDeleted(lines, opts.DryRun); err != nil {
			return err
		}
		if ctx.Err() != nil && name == "" && !opts.DryRun && slices.ContainsFunc(lines, func(l gcLine) bool { return l.err != nil }) {
			return advice{ctx.Err(), howMany(lines) + "; the same command goes on with the rest"}
		}
		slices.SortStableFunc(lines, func(a, b gcLine) int { return followsFromOthers(a.err) - followsFromOthers(b.err) })
		return p.firstFailure(len(lines), func(i int) error { return lines[i].err })
	})
}

// printDeleted prints what was deleted. A failure to print says which task that was, or how many.
func (p *program) printDeleted(lines []gcLine, dryRun bool) error {
	human := func(w *bytes.Buffer) { gcTable(w, lines, dryRun) }
	if dryRun {
		return p.print(lines, human)
	}
	what := howMany(lines)
	if len(lines) == 1 && lines[0].gone {
		what = lines[0].deleted()
	}
	return p.printDone(what, lines, human)
}

func (l *gcLine) deleted() string { return fmt.Sprintf("task %q was deleted", l.Task) }

// howMany says how many tasks were deleted, and of how many that is not known.
func howMany(lines []gcLine) string {
	deleted, unknown := 0, 0
	for _, l := range lines {
		switch {
		case l.gone:
			deleted++
		case errors.Is(l.err, checkpoint.ErrUnknown):
			unknown++
		}
	}
	text := fmt.Sprintf("%d of %s deleted", deleted, counted(len(lines), "task was", "tasks were"))
	if unknown > 0 {
		text += fmt.Sprintf(", and of %d it is not known", unknown)
	}
	return text
}

// followsFromOthers ranks why a task was not deleted: that forks need its data, or that it is
// claimed, is what happens to it, and not what is wrong with the store.
func followsFromOthers(err error) int {
	switch {
	case errors.Is(err, checkpoint.ErrCorrupt):
		return 0
	case errors.Is(err, checkpoint.ErrHeld):
		return 2
	case errors.Is(err, checkpoint.ErrClaimed):
		return 1
	}
	return 0
}

// deleteTasks deletes tasks. A task that forks need is tried again when one of the others is
// deleted; a dry run takes that to be done.
func deleteTasks(ctx context.Context, p *program, tasks []*checkpoint.Task, opts checkpoint.DeleteOptions) []gcLine {
	tick, stop := p.followTasks("deleting", len(tasks))
	defer stop()
	lines := make([]gcLine, len(tasks))
	for again := true; again; {
		again = false
		for i, task := range tasks {
			if lines[i].gone || lines[i].Task != "" && !errors.Is(lines[i].err, checkpoint.ErrHeld) {
				continue
			}
			lines[i] = deleteTask(ctx, task, opts)
			if !errors.Is(lines[i].err, checkpoint.ErrHeld) {
				tick()
			}
			if lines[i].err == nil || lines[i].gone {
				opts.After = append(opts.After, task.Name())
				again = true
			}
		}
	}
	return lines
}

func deleteTask(ctx context.Context, task *checkpoint.Task, opts checkpoint.DeleteOptions) gcLine {
	done, err := task.Delete(ctx, opts)
	line := gcLine{Task: task.Name(), CollectResult: done, err: err, gone: done.Deleted}
	switch {
	case err == nil:
		return line
	case line.gone:
		line.err = advice{changed{line.deleted(), err}, "'holdfast gc' deletes what is left of it"}
	case errors.Is(err, checkpoint.ErrCorrupt) && !errors.Is(err, checkpoint.ErrLost):
		line.err = advice{err, undeletable}
	}
	line.Error = oneLine(line.err.Error())
	return line
}

// undeletable says what to do about a task whose newest manifest is damaged. What that holds
// for forks is not known, so the task cannot be deleted.
const undeletable = "bring that object back from a backup; if there is none, and nothing writes to the task, " +
	"move the object out of the store and delete the task again"

// existing returns the lines of tasks that were there: one that was deleted before is in
// the store still, to be told of.
func existing(lines []gcLine) []gcLine {
	return slices.DeleteFunc(lines, func(l gcLine) bool { return errors.Is(l.err, checkpoint.ErrNoCheckpoint) })
}
