package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) pruneCommand() *cobra.Command {
	var keep checkpoint.Retention
	var opts checkpoint.PruneOptions
	cmd := &cobra.Command{
		Use:   "prune URL TASK",
		Short: "Drop the checkpoints of a task that a policy does not keep",
		Long: `Drop the checkpoints of TASK that none of the --keep flags keeps, and delete
what only they needed. The newest checkpoint stays, and so do savepoints that
have not expired. With --dry-run nothing is changed.

Ages count back from the newest checkpoint, and hours, days, weeks and months
without a checkpoint are not counted: a task that stands still keeps what it has.

A task that is claimed is refused, because its owner, if it still runs, could not
commit any more and would have to be started again. With --fence it is pruned all
the same. A job that runs prunes by itself, as its program says.`,
		Example: `  holdfast prune file:///var/lib/orders orders/7 --keep-last 10 --keep-daily 7 --dry-run
  holdfast prune orders/7 --keep-within 2w --keep-monthly 12`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK")
			if err != nil {
				return err
			}
			if keep == (checkpoint.Retention{}) {
				return wrongUsage(cmd, "which checkpoints are to stay? give one or more of --keep-last, --keep-within, "+
					"--keep-hourly, --keep-daily, --keep-weekly and --keep-monthly")
			}
			return p.prune(cmd.Context(), url, args[0], keep, opts)
		},
	}
	f := cmd.Flags()
	keepFlags(cmd, &keep)
	f.BoolVar(&opts.DryRun, "dry-run", false, "only show what would go, and how much that would free")
	f.BoolVar(&opts.Fence, "fence", false, "prune the task although it is claimed, which fences its owner")
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
}

func (p *program) prune(ctx context.Context, url, name string, keep checkpoint.Retention, opts checkpoint.PruneOptions) error {
	return p.withTask(ctx, url, name, checkpoint.Retention{}, func(task *checkpoint.Task) error {
		before, err := task.Status(ctx)
		if err != nil {
			return err
		}
		pruned, err := task.Prune(ctx, keep, opts)
		switch {
		case errors.Is(err, checkpoint.ErrUnknown):
			// That it may have been saved, and is to be looked for, is said of saves.
			return said{text: err.Error() + "; it may have been pruned: prune it again"}
		case err != nil:
			return absent(ctx, task, err)
		}
		r := pruneResult{
			Task: name, DryRun: opts.DryRun, Checkpoints: pruned.Checkpoints,
			Segments: pruned.Segments, Bytes: pruned.Bytes,
		}
		for _, v := range pruned.Checkpoints {
			if v.Removed() {
				r.Dropped++
			}
		}
		if before.Claimed && r.Dropped > 0 {
			p.noteClaim(name, before, opts)
		}
		err = p.print(r, r.human)
		if err != nil && !opts.DryRun {
			err = fmt.Errorf("%d checkpoints were dropped, but %w", r.Dropped, err)
		}
		return err
	})
}

func (p *program) noteClaim(name string, s checkpoint.Status, opts checkpoint.PruneOptions) {
	const claimed = "task %q was claimed (epoch %d, writer %s) and not released: "
	switch {
	case !opts.DryRun:
		p.note(claimed+"if that owner still runs, it is fenced now and must be started again", name, s.Epoch, s.Writer)
	case !opts.Fence:
		p.note(claimed+"without --fence it is not pruned", name, s.Epoch, s.Writer)
	}
}

func (r *pruneResult) human(w *bytes.Buffer) {
	rows := [][]string{{"SEQ", "TIME", "SAVEPOINT", "FATE", "KEPT BY"}}
	for _, v := range r.Checkpoints {
		fate := "stays"
		if v.Removed() {
			fate = "goes"
		}
		rows = append(rows, []string{
			strconv.FormatUint(v.Seq, 10), clock(v.Time), printable(v.Savepoint), fate, strings.Join(v.KeptBy, ", "),
		})
	}
	table(w, rows)
	of := fmt.Sprintf("%d of %d checkpoints", r.Dropped, len(r.Checkpoints))
	switch {
	case r.Dropped == 0:
		fmt.Fprintln(w, "nothing goes")
	case r.DryRun:
		fmt.Fprintf(w, "would drop %s, which frees %s\n", of, size(r.Bytes))
	default:
		fmt.Fprintf(w, "dropped %s, which frees %s\n", of, size(r.Bytes))
	}
}
