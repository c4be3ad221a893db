package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) forkCommand() *cobra.Command {
	at, detach := "", false
	var detached checkpoint.DetachOptions
	cmd := &cobra.Command{
		Use:   "fork URL TASK NEWTASK",
		Short: "Make a new task of a checkpoint, without copying data",
		Long: `Make the new task NEWTASK, whose first checkpoint is the newest of TASK, or the one
that --at names: to try a new version on production's state, or to keep a state for an
investigation. No data is copied, and the job that has TASK is not disturbed.

From then on the two go their own ways. TASK keeps the checkpoint for as long as
NEWTASK needs its data, whatever retention says, and cannot be deleted until then.
'holdfast rm' of NEWTASK ends that, and so does the first 'holdfast gc' of TASK after
NEWTASK has no checkpoint left that shares data with it.

With --detach, and no NEWTASK, TASK is a fork: its newest checkpoint is saved anew, with
all its data, and its other checkpoints that share data are dropped. Then the task that
it was forked from need keep nothing for it. A fork that is claimed is refused, unless
--take-over is given.`,
		Example: `  holdfast fork file:///var/lib/orders orders/7 try/7
  holdfast fork orders/7 incident-12 --at 4711
  holdfast fork --detach file:///var/lib/orders try/7`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if detach {
				url, args, err := p.arguments(cmd, args, "TASK")
				if err != nil {
					return err
				}
				if at != "" {
					return wrongUsage(cmd, "--at is for a new fork, and not for --detach")
				}
				return p.detach(cmd.Context(), url, args[0], detached)
			}
			if detached.Fence {
				return wrongUsage(cmd, "--take-over is for --detach")
			}
			url, args, err := p.arguments(cmd, args, "TASK", "NEWTASK")
			if err != nil {
				return err
			}
			var opts checkpoint.ForkOptions
			if opts.At, err = refOf(at); err != nil {
				return err
			}
			return p.fork(cmd.Context(), url, args[0], args[1], opts)
		},
	}
	atFlag(cmd, &at)
	cmd.Flags().BoolVar(&detach, "detach", false, "copy what the fork TASK shares, so that it needs no other task's data")
	cmd.Flags().BoolVar(&detached.Fence, "take-over", false, "detach a fork although it is claimed: its owner is fenced")
	p.output(cmd)
	return cmd
}

// A forked says what was made, as JSON shows it.
type forked struct {
	Task string `json:"task"` // the new one
	Seq  uint64 `json:"seq"`  // of its first checkpoint
	Of   string `json:"of"`   // the task that was forked
}

func (p *program) fork(ctx context.Context, url, name, to string, opts checkpoint.ForkOptions) error {
	return p.withTask(ctx, url, name, checkpoint.Retention{}, func(task *checkpoint.Task) error {
		seq, err := task.Fork(ctx, to, opts)
		if errors.Is(err, checkpoint.ErrUnknown) {
			return advice{err, "it may have been done: look with 'holdfast ls --json', which shows the forks of a task, before you do it again"}
		}
		if err != nil {
			return absent(ctx, task, err)
		}
		doc := forked{Task: to, Seq: seq, Of: name}
		return p.printDone(fmt.Sprintf("task %q was made", to), doc, func(w *bytes.Buffer) {
			fmt.Fprintf(w, "forked %s: checkpoint %d of %s\n", strconv.Quote(name), seq, strconv.Quote(to))
		})
	})
}

// detach makes a fork need no other task's data, and prints its newest checkpoint.
func (p *program) detach(ctx context.Context, url, name string, opts checkpoint.DetachOptions) error {
	return p.withTask(ctx, url, name, checkpoint.Retention{Last: checkpoint.KeepAll}, func(task *checkpoint.Task) error {
		report, stop := p.follow("saving", "sent")
		opts.Progress = report
		c, err := task.Detach(ctx, opts)
		stop()
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) && !errors.Is(err, checkpoint.ErrUnknown) { // it has several steps
			return advice{err, "what was saved or dropped until then stays so, and the same command goes on with the rest"}
		}
		if err != nil {
			return absent(ctx, task, err)
		}
		return p.printDone(fmt.Sprintf("task %q was detached", name), c, func(w *bytes.Buffer) {
			fmt.Fprintf(w, "%s needs no other task's data: %s, %s\n", title(c), files(c), size(c.Bytes))
		})
	})
}
