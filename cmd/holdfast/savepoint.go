package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) savepointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "savepoint",
		Short: "List, add, rename or remove the savepoints of a task",
		Long: `A savepoint is a checkpoint with a name, which retention does not remove. These
commands may be used while the task's owner runs: it is not disturbed.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return wrongUsage(cmd, "%q is not ls, add, rename or rm", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.savepointLsCommand(), p.savepointAddCommand(), p.savepointRenameCommand(), p.savepointRmCommand())
	return cmd
}

func (p *program) savepointLsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls URL TASK",
		Short:   "List the savepoints of a task",
		Long:    `List the checkpoints of TASK that have a name, as ls lists all of them.`,
		Example: `  holdfast savepoint ls file:///var/lib/orders orders/7`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK")
			if err != nil {
				return err
			}
			return p.listCheckpoints(cmd.Context(), url, args[0], func(c *checkpoint.Checkpoint) bool { return c.Savepoint != "" })
		},
	}
	p.output(cmd)
	return cmd
}

func (p *program) savepointAddCommand() *cobra.Command {
	var opts checkpoint.SavepointOptions
	at := ""
	cmd := &cobra.Command{
		Use:   "add URL TASK NAME",
		Short: "Give a name to a checkpoint, which keeps it",
		Long: `Give the newest checkpoint of TASK, or the one that --at names, the name NAME, so
that retention does not remove it. With --expires D, retention may remove it once D
has passed from now; until it is removed it keeps the name.

To change when the savepoint NAME expires, give its name to --at as well. A
checkpoint that has another name is refused: rename it.`,
		Example: `  holdfast savepoint add file:///var/lib/orders orders/7 before-upgrade
  holdfast savepoint add orders/7 incident-12 --at 4711 --expires 30d
  holdfast savepoint add orders/7 incident-12 --at incident-12 --expires 90d`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK", "NAME")
			if err != nil {
				return err
			}
			if opts.At, err = refOf(at); err != nil {
				return err
			}
			return p.amend(cmd.Context(), url, args[0], func(ctx context.Context, task *checkpoint.Task) (uint64, error) {
				return task.AddSavepoint(ctx, args[1], opts)
			})
		},
	}
	atFlag(cmd, &at)
	cmd.Flags().Func("expires", "until so long from now: `D` is a duration such as 36h, 7d or 2w", duration(&opts.ExpiresAfter))
	p.output(cmd)
	return cmd
}

func (p *program) savepointRenameCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rename URL TASK NAME NEWNAME",
		Short:   "Give a savepoint another name",
		Long:    `Give the savepoint NAME of TASK the name NEWNAME.`,
		Example: `  holdfast savepoint rename file:///var/lib/orders orders/7 before-upgrade version-2`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK", "NAME", "NEWNAME")
			if err != nil {
				return err
			}
			return p.amend(cmd.Context(), url, args[0], func(ctx context.Context, task *checkpoint.Task) (uint64, error) {
				return task.RenameSavepoint(ctx, args[1], args[2])
			})
		},
	}
	p.output(cmd)
	return cmd
}

func (p *program) savepointRmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm URL TASK NAME",
		Short: "Take the name from a savepoint",
		Long: `Take the name NAME from the checkpoint of TASK that has it. Nothing is deleted by
that: it is a checkpoint like others from then on, which retention may remove.`,
		Example: `  holdfast savepoint rm file:///var/lib/orders orders/7 before-upgrade`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK", "NAME")
			if err != nil {
				return err
			}
			return p.amend(cmd.Context(), url, args[0], func(ctx context.Context, task *checkpoint.Task) (uint64, error) {
				return task.RemoveSavepoint(ctx, args[1])
			})
		},
	}
	p.output(cmd)
	return cmd
}

func (p *program) noteCommand() *cobra.Command {
	at, author := "", ""
	cmd := &cobra.Command{
		Use:   "note URL TASK TEXT",
		Short: "Say something of a checkpoint that is to be remembered",
		Long: `Make TEXT the note on the newest checkpoint of TASK, or on the one that --at names;
show prints it. An empty TEXT removes the note. A note does not keep the checkpoint:
give it a name for that (savepoint add). It may be done while the task's owner runs:
it is not disturbed.`,
		Example: `  holdfast note file:///var/lib/orders orders/7 'wrong counts since the deploy' --author ops --at 4711`,
		RunE: func(cmd *cobra.Command, args []string) error {
			remove := len(args) > 0 && args[len(args)-1] == ""
			if remove { // an empty argument would be refused
				args = slices.Concat(args[:len(args)-1], []string{"-"})
			}
			url, rest, err := p.arguments(cmd, args, "TASK", "TEXT")
			if err != nil {
				return err
			}
			if remove && author != "" {
				return wrongUsage(cmd, "--author is for a note that is not empty")
			}
			ref, err := refOf(at)
			if err != nil {
				return err
			}
			note := checkpoint.Note{Author: author, Text: rest[1]}
			if remove {
				note = checkpoint.Note{}
			}
			return p.amend(cmd.Context(), url, rest[0], func(ctx context.Context, task *checkpoint.Task) (uint64, error) {
				return task.Annotate(ctx, ref, note)
			})
		},
	}
	atFlag(cmd, &at)
	cmd.Flags().StringVar(&author, "author", "", "`WHO` says so")
	p.output(cmd)
	return cmd
}

// amend changes what is said of a checkpoint, and prints it as it is then.
func (p *program) amend(ctx context.Context, url, name string, change func(context.Context, *checkpoint.Task) (uint64, error)) error {
	return p.withTask(ctx, url, name, checkpoint.Retention{}, func(task *checkpoint.Task) error {
		seq, err := change(ctx, task)
		if err != nil {
			return absent(ctx, task, err)
		}
		done := fmt.Sprintf("checkpoint %d was changed", seq)
		c, err := task.Get(ctx, checkpoint.Seq(seq))
		if errors.Is(err, checkpoint.ErrNoCheckpoint) || errors.Is(err, checkpoint.ErrGone) {
			p.note("checkpoint %d was changed, and has been removed by now", seq)
			c, err = &checkpoint.Checkpoint{Task: name, Seq: seq}, nil
		}
		if err != nil {
			return changed{done, err}
		}
		return p.printDone(done, c, func(w *bytes.Buffer) { fmt.Fprintln(w, amended(c)) })
	})
}

// amended says what is said of a checkpoint now.
func amended(c *checkpoint.Checkpoint) string {
	text := fmt.Sprintf("checkpoint %d of %s", c.Seq, strconv.Quote(c.Task))
	if c.Savepoint == "" {
		text += " has no name"
	} else {
		text += " is savepoint " + savepoint(c)
	}
	if c.Note == (checkpoint.Note{}) {
		return text + "; no note"
	}
	return text + "; note: " + noteText(c.Note)
}

// noteText puts a note on one line.
func noteText(n checkpoint.Note) string {
	if n.Author == "" {
		return printable(n.Text)
	}
	return printable(n.Text) + " (" + printable(n.Author) + ")"
}
