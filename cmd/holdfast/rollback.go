package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) rollbackCommand() *cobra.Command {
	var opts checkpoint.RollbackOptions
	cmd := &cobra.Command{
		Use:   "rollback URL TASK SEQ|NAME",
		Short: "Make an older checkpoint the newest again",
		Long: `Make the checkpoint of TASK with the number SEQ, or the savepoint NAME, the
newest again: the one that a job goes on from and that a restore takes.

A task that is claimed is refused, because its owner may still run. With
--take-over it is rolled back all the same, and the owner is fenced: it cannot
commit any more, and has to be started again.

No data is moved, and nothing is lost: the checkpoint keeps its number, and those
that came after it stay until retention drops them. The same command leads back
to them.`,
		Example: `  holdfast rollback file:///var/lib/orders orders/7 before-upgrade
  holdfast rollback orders/7 12`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK", "SEQ|NAME")
			if err != nil {
				return err
			}
			at, err := checkpoint.ParseRef(args[1])
			if err != nil {
				return err
			}
			return p.rollback(cmd.Context(), url, args[0], at, opts)
		},
	}
	cmd.Flags().BoolVar(&opts.Fence, "take-over", false, "do so although the task is claimed: its owner is fenced")
	p.output(cmd)
	return cmd
}

// A rolledBack is the checkpoint that is the newest again, as JSON shows it.
type rolledBack struct {
	*checkpoint.Checkpoint
	Replaces *uint64 `json:"replaces"` // which was the newest; nil if it is not known
}

func (p *program) rollback(ctx context.Context, url, name string, at checkpoint.Ref, opts checkpoint.RollbackOptions) error {
	return p.withTask(ctx, url, name, checkpoint.Retention{}, func(task *checkpoint.Task) error {
		before, err := statusToWrite(ctx, task)
		if err != nil {
			return err
		}
		c, err := task.Rollback(ctx, at, opts)
		if err != nil {
			return absent(ctx, task, err)
		}
		doc := rolledBack{Checkpoint: c}
		if before.Latest != nil && followed(ctx, task, before) {
			doc.Replaces = &before.Latest.Seq
		}
		what := fmt.Sprintf("checkpoint %d is the newest again", c.Seq)
		return p.printDone(what, doc, func(w *bytes.Buffer) { fmt.Fprintln(w, doc.sentence()) })
	})
}

// followed reports whether the task's last step is the first one after before:
// an owner may have committed in between.
func followed(ctx context.Context, task *checkpoint.Task, before checkpoint.Status) bool {
	now, _ := task.Status(ctx) // zero if it cannot be read
	return now.Manifest == before.Manifest+1
}

func (r *rolledBack) sentence() string {
	switch {
	case r.Replaces == nil:
		return title(r.Checkpoint) + " is the newest again"
	case *r.Replaces == r.Seq:
		return title(r.Checkpoint) + " was the newest already"
	}
	return fmt.Sprintf("%s is the newest again, in place of checkpoint %d", title(r.Checkpoint), *r.Replaces)
}

// statusToWrite returns a task's status for someone who will make its next
// manifest. A newest checkpoint that cannot be read is in nobody's way then.
func statusToWrite(ctx context.Context, task *checkpoint.Task) (checkpoint.Status, error) {
	status, err := task.Status(ctx)
	if status.Manifest > 0 {
		err = nil
	}
	return status, err
}
