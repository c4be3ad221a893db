package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) gcCommand() *cobra.Command {
	var opts checkpoint.CollectOptions
	cmd := &cobra.Command{
		Use:   "gc URL [TASK]",
		Short: "Delete what no checkpoint of a task, or of any task, needs",
		Long: `Delete what no checkpoint of TASK needs, or of any task of the job: what killed
processes and failed clean-ups have left behind, and manifests that newer ones
have followed for more than an hour.

It may run at any time, beside jobs, saves and restores, and stops none of them.
No object is deleted for its age alone: what a save has under way stays. Whether
it is under way or was killed cannot be told, so what a killed one has uploaded
goes with the first gc after the next claim or save. If it is there for more than
an hour, a note says so.

Segments that prove that someone has deleted manifests stay, too, so that these
can be brought back. With --lost they are deleted, and so is what a save has under
way: see to it first that nothing still writes to the task. A task that is claimed is
refused if its owner would be fenced by that; with --take-over it is done all the same.`,
		Example: `  holdfast gc file:///var/lib/orders --dry-run
  holdfast gc file:///var/lib/orders orders/7
  holdfast gc file:///var/lib/orders orders/7 --lost --dry-run`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "[TASK]")
			if err != nil {
				return err
			}
			if opts.Fence && !opts.Lost {
				return wrongUsage(cmd, "--take-over is for --lost")
			}
			return p.gc(cmd.Context(), url, taskOrNone(args), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.DryRun, "dry-run", false, "delete nothing, and say what would be deleted")
	cmd.Flags().BoolVar(&opts.Lost, "lost", false, "delete also what is left of commits whose manifests were lost")
	cmd.Flags().BoolVar(&opts.Fence, "take-over", false, "do so although the task is claimed: its owner is fenced")
	p.output(cmd)
	return cmd
}

// A gcLine says what was deleted of a task.
type gcLine struct {
	Task string `json:"task"`
	checkpoint.CollectResult
	Error string `json:"error,omitempty"` // why not all was

	err  error
	gone bool // the task was deleted by this command
}

func (p *program) gc(ctx context.Context, url, name string, opts checkpoint.CollectOptions) error {
	return p.withJob(ctx, url, checkpoint.Retention{}, func(job *checkpoint.Job) error {
		tasks, err := tasksOf(ctx, job, name)
		if err != nil {
			return err
		}
		lines := eachTask(p, "collecting", tasks, func(task *checkpoint.Task) gcLine {
			done, err := task.Collect(ctx, opts)
			if err == nil && name != "" && done.Segments+done.Manifests == 0 {
				err = exists(ctx, task)
			}
			line := gcLine{Task: task.Name(), CollectResult: done, err: err}
			if err != nil {
				line.Error = oneLine(err.Error())
			}
			return line
		})
		if name != "" && lines[0].err != nil && lines[0].CollectResult == (checkpoint.CollectResult{Deleted: lines[0].Deleted}) {
			return lines[0].err
		}
		if len(lines) == 0 && !p.asJSON {
			p.note("there are no tasks under %s yet", url)
		}
		lines = slices.DeleteFunc(lines, func(l gcLine) bool {
			return l.Deleted && l.err == nil && l.Segments+l.Manifests == 0
		})
		p.noteVersions(job)
		human := func(w *bytes.Buffer) { gcTable(w, lines, opts.DryRun) }
		if opts.DryRun {
			err = p.print(lines, human)
		} else {
			err = p.printDone("what no checkpoint needs was deleted", lines, human)
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return advice{ctx.Err(), "what is garbage still goes with the next gc"}
		}
		return p.firstFailure(len(lines), func(i int) error { return lines[i].err })
	})
}

// noteVersions mentions that what is deleted is still there, and paid for.
func (p *program) noteVersions(job *checkpoint.Job) {
	if job.KeepsVersions() {
		p.note("the bucket keeps what is deleted, as noncurrent versions, which are paid for until a lifecycle rule removes them (docs/deploy)")
	}
}

// exists returns ErrNoCheckpoint if there is no such task.
func exists(ctx context.Context, task *checkpoint.Task) error {
	status, err := task.Status(ctx)
	if err == nil && status.Manifest == 0 {
		return absent(ctx, task, checkpoint.ErrNoCheckpoint)
	}
	return err
}

func gcTable(w *bytes.Buffer, lines []gcLine, dryRun bool) {
	rows := [][]string{{"TASK", "SEGMENTS", "MANIFESTS", "SIZE"}}
	all := checkpoint.CollectResult{}
	for _, l := range lines {
		if l.err != nil && !l.gone && l.Segments+l.Manifests == 0 {
			rows = append(rows, []string{printable(l.Task), "failed", "", ""})
			continue
		}
		rows = append(rows, []string{printable(l.Task), strconv.Itoa(l.Segments), strconv.Itoa(l.Manifests), size(l.Bytes)})
		all.Segments += l.Segments
		all.Manifests += l.Manifests
		all.Bytes += l.Bytes
	}
	if len(lines) > 0 {
		table(w, rows)
	}
	verb := "deleted"
	if dryRun {
		verb = "would delete"
	}
	fmt.Fprintf(w, "%s %s and %s: %s\n", verb, counted(all.Segments, "segment", "segments"),
		counted(all.Manifests, "manifest", "manifests"), size(all.Bytes))
}
