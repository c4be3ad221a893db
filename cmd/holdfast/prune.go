package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) pruneCommand() *cobra.Command {
	var keep checkpoint.Retention
	var opts checkpoint.PruneOptions
	all := false
	cmd := &cobra.Command{
		Use:   "prune URL TASK",
		Short: "Drop the checkpoints of a task that a policy does not keep",
		Long: `Drop the checkpoints of TASK that none of the --keep flags keeps, and delete
what only they needed. The newest checkpoint stays, and so do savepoints that
have not expired. With --dry-run nothing is changed. With --all-tasks, and no TASK,
do so for every task of the job.

Ages count back from the newest checkpoint, and hours, days, weeks and months
without a checkpoint are not counted: a task that stands still keeps what it has.

It may be done while the task's owner runs: that is not disturbed. A job that runs
also prunes by itself, as its program says.`,
		Example: `  holdfast prune file:///var/lib/orders orders/7 --keep-last 10 --keep-daily 7 --dry-run
  holdfast prune orders/7 --keep-within 2w --keep-monthly 12
  holdfast prune file:///var/lib/orders --all-tasks --keep-last 3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, name, err := p.taskOrAll(cmd, args, all)
			if err != nil {
				return err
			}
			if keep == (checkpoint.Retention{}) {
				return wrongUsage(cmd, "which checkpoints are to be kept? give one or more of --keep-last, --keep-within, "+
					"--keep-hourly, --keep-daily, --keep-weekly and --keep-monthly")
			}
			if all {
				return p.pruneAll(cmd.Context(), url, keep, opts)
			}
			return p.prune(cmd.Context(), url, name, keep, opts)
		},
	}
	f := cmd.Flags()
	keepFlags(cmd, &keep)
	f.BoolVar(&all, "all-tasks", false, "prune every task of the job")
	f.BoolVar(&opts.DryRun, "dry-run", false, "only show what would be removed, and how much that would free")
	p.output(cmd)
	return cmd
}

// A pruneResult is what prune says that it did, or would do.
type pruneResult struct {
	Task        string               `json:"task"`
	DryRun      bool                 `json:"dry_run"`
	Checkpoints []checkpoint.Verdict `json:"checkpoints"`
	Dropped     int                  `json:"dropped"`
	Segments    int                  `json:"segments"`
	Bytes       int64                `json:"bytes"`
	Error       string               `json:"error,omitempty"` // why it was not pruned

	err error
}

func (p *program) prune(ctx context.Context, url, name string, keep checkpoint.Retention, opts checkpoint.PruneOptions) error {
	return p.withTask(ctx, url, name, checkpoint.Retention{}, func(task *checkpoint.Task) error {
		r := pruneTask(ctx, task, keep, opts)
		if r.err != nil {
			return absent(ctx, task, r.err)
		}
		if opts.DryRun || r.Dropped == 0 {
			return p.print(r, r.human)
		}
		dropped := counted(r.Dropped, "checkpoint was", "checkpoints were") + " dropped"
		if err := p.printDone(dropped, r, r.human); err != nil {
			return err
		}
		if ctx.Err() != nil { // while it deleted what only these needed
			return advice{changed{dropped, ctx.Err()}, deletedLater}
		}
		return nil
	})
}

// deletedLater says what becomes of what an interrupted prune has not deleted.
const deletedLater = "what is left of them goes with the owner's next commit or, if the task is not claimed, with the next 'holdfast gc'"

// pruneTask prunes one task.
func pruneTask(ctx context.Context, task *checkpoint.Task, keep checkpoint.Retention, opts checkpoint.PruneOptions) pruneResult {
	pruned, err := task.Prune(ctx, keep, opts)
	if errors.Is(err, checkpoint.ErrUnknown) {
		// That it may have been saved, and is to be looked for, is said of saves.
		err = said{text: err.Error() + "; it may have been pruned: prune it again"}
	}
	r := pruneResult{
		Task: task.Name(), DryRun: opts.DryRun, Checkpoints: pruned.Checkpoints,
		Segments: pruned.Segments, Bytes: pruned.Bytes, err: err,
	}
	if err != nil {
		r.Checkpoints, r.Error = []checkpoint.Verdict{}, oneLine(err.Error())
	}
	for _, v := range pruned.Checkpoints {
		if v.Removed() {
			r.Dropped++
		}
	}
	return r
}

// pruneAll prunes every task that has a checkpoint. One that cannot be pruned does not
// keep the others from it.
func (p *program) pruneAll(ctx context.Context, url string, keep checkpoint.Retention, opts checkpoint.PruneOptions) error {
	return p.withJob(ctx, url, checkpoint.Retention{}, func(job *checkpoint.Job) error {
		tasks, err := tasksOf(ctx, job, "")
		if err != nil {
			return err
		}
		lines := eachTask(p, "pruning", tasks, func(task *checkpoint.Task) pruneResult { return pruneTask(ctx, task, keep, opts) })
		lines = slices.DeleteFunc(lines, func(r pruneResult) bool { return errors.Is(r.err, checkpoint.ErrNoCheckpoint) })
		if len(lines) == 0 && !p.asJSON {
			p.note("there are no tasks with checkpoints under %s", url)
		}
		human := func(w *bytes.Buffer) { pruneTable(w, lines) }
		if opts.DryRun {
			err = p.print(lines, human)
		} else {
			err = p.printDone("what the policy does not keep was dropped", lines, human)
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return advice{ctx.Err(), "what was pruned stays so, and the same command goes on with the rest"}
		}
		return p.firstFailure(len(lines), func(i int) error { return lines[i].err })
	})
}

// pruneTable writes a line for each task.
func pruneTable(w *bytes.Buffer, lines []pruneResult) {
	if len(lines) == 0 {
		return
	}
	rows := [][]string{{"TASK", "CHECKPOINTS", "DROPPED", "FREES"}}
	for _, r := range lines {
		if r.err != nil {
			rows = append(rows, []string{printable(r.Task), "not pruned", "", ""})
			continue
		}
		rows = append(rows, []string{printable(r.Task), strconv.Itoa(len(r.Checkpoints)), strconv.Itoa(r.Dropped), size(r.Bytes)})
	}
	table(w, rows)
	if lines[0].DryRun {
		fmt.Fprintln(w, "nothing is changed by a dry run")
	}
}

func (r *pruneResult) human(w *bytes.Buffer) {
	rows := [][]string{{"SEQ", "TIME", "SAVEPOINT", "RESULT", "KEPT BY"}}
	for _, v := range r.Checkpoints {
		fate := "kept"
		if v.Removed() {
			fate = "removed"
		}
		rows = append(rows, []string{
			strconv.FormatUint(v.Seq, 10), clock(v.Time), printable(v.Savepoint), fate, strings.Join(v.KeptBy, ", "),
		})
	}
	table(w, rows)
	of := fmt.Sprintf("%d of %d checkpoints", r.Dropped, len(r.Checkpoints))
	switch {
	case r.Dropped == 0:
		fmt.Fprintln(w, "nothing is removed")
	case r.DryRun:
		fmt.Fprintf(w, "would drop %s, which frees %s\n", of, size(r.Bytes))
	default:
		fmt.Fprintf(w, "dropped %s, which frees %s\n", of, size(r.Bytes))
	}
}
