package main

import (
	"bytes"
	"context"
	"errors"

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
		if name != "" && lines[0].err != nil && (opts.DryRun || lines[0].CollectResult == (checkpoint.CollectResult{})) {
			return absent(ctx, tasks[0], lines[0].err)
		}
		if name == "" {
			lines = existing(lines, opts.DryRun)
		}
		if len(lines) == 0 && !p.asJSON {
			p.note("all tasks under %s were deleted before", url)
		}
		p.noteVersions(job)
		if err := p.print(lines, func(w *bytes.Buffer) { gcTable(w, lines, opts.DryRun) }); err != nil {
			return err
		}
		return p.firstFailure(len(lines), func(i int) error { return lines[i].err })
	})
}

// deleteTasks deletes tasks. A task that forks need is tried again when they are deleted.
func deleteTasks(ctx context.Context, p *program, tasks []*checkpoint.Task, opts checkpoint.DeleteOptions) []gcLine {
	tick, stop := p.followTasks("deleting", len(tasks))
	defer stop()
	lines := make([]gcLine, len(tasks))
	for again := true; again; {
		again = false
		for i, task := range tasks {
			if lines[i].Task != "" && !errors.Is(lines[i].err, checkpoint.ErrHeld) {
				continue
			}
			done, err := task.Delete(ctx, opts)
			if errors.Is(err, checkpoint.ErrCorrupt) && !errors.Is(err, checkpoint.ErrLost) {
				err = advice{err, undeletable}
			}
			if !errors.Is(err, checkpoint.ErrHeld) {
				tick()
			}
			lines[i] = gcLine{Task: task.Name(), CollectResult: done, err: err}
			if err != nil {
				lines[i].Error = oneLine(err.Error())
			}
			again = again || err == nil && !opts.DryRun
		}
	}
	return lines
}

// undeletable says what to do about a task whose newest manifest is damaged. What that holds
// for forks is not known, so the task cannot be deleted.
const undeletable = "bring that object back from a backup; if there is none, and nothing writes to the task, " +
	"move the object out of the store and delete the task again"

// existing returns the lines of tasks that were there: one that was deleted before is in
// the store still, to be told of. In a dry run of all tasks, forks are no reason not to
// delete one: they would be deleted first.
func existing(lines []gcLine, dryRun bool) (list []gcLine) {
	list = []gcLine{}
	for _, l := range lines {
		if dryRun && errors.Is(l.err, checkpoint.ErrHeld) {
			l.err, l.Error = nil, ""
		}
		if !errors.Is(l.err, checkpoint.ErrNoCheckpoint) {
			list = append(list, l)
		}
	}
	return list
}
