package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) restoreCommand() *cobra.Command {
	at, opts := "", checkpoint.RestoreOptions{}
	cmd := &cobra.Command{
		Use:   "restore URL TASK DIR",
		Short: "Restore a checkpoint into a directory",
		Long: `Restore the newest checkpoint of TASK, or the one that --at names, to DIR. Every
byte is checked. DIR appears in one step: when the command fails or is killed,
DIR is as it was.

DIR must be empty or absent. With --force, what is in it is replaced: all of it.
Data that DIR has already is copied from there, and only the rest is fetched.

With --owners, files get the owners that they were saved with (save --owners); that
mostly takes root. Without it they belong to who restores them, and a program that
ran as its owner (setuid, setgid) does not any more.`,
		Example: `  holdfast restore file:///var/lib/orders orders/7 ./state
  holdfast restore orders/7 ./state --at before-upgrade --force`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK", "DIR")
			if err != nil {
				return err
			}
			return p.restore(cmd.Context(), url, args[0], args[1], at, opts)
		},
	}
	atFlag(cmd, &at)
	cmd.Flags().BoolVar(&opts.Replace, "force", false, "replace what is in DIR")
	cmd.Flags().BoolVar(&opts.FileOwners, "owners", false, "give files the owners and groups, by number, that they were saved with")
	p.memoryFlag(cmd)
	p.output(cmd)
	return cmd
}

func atFlag(cmd *cobra.Command, at *string) {
	cmd.Flags().Func("at", "number or savepoint of the checkpoint, `SEQ|NAME` (default: the newest)", nonEmpty(at))
}

func (p *program) restore(ctx context.Context, url, name, dir, at string, opts checkpoint.RestoreOptions) error {
	if err := checkApart(url, dir); err != nil {
		return err
	}
	return p.withTask(ctx, url, name, checkpoint.Retention{}, func(task *checkpoint.Task) error {
		report, stop := p.follow("restoring", "fetched")
		opts.Progress = report
		c, err := restoreTask(ctx, task, dir, at, opts)
		stop()
		if err != nil {
			return err
		}
		return p.printDone(fmt.Sprintf("checkpoint %d was restored", c.Seq), c, func(w *bytes.Buffer) {
			fmt.Fprintf(w, "restored %s to %s: %s, %s\n", title(c), printable(dir), files(c), size(c.Bytes))
		})
	})
}

// restoreTask restores one checkpoint. The newest may be retired by a running
// job while it is read: then there is a newer one.
func restoreTask(ctx context.Context, task *checkpoint.Task, dir, at string, opts checkpoint.RestoreOptions) (*checkpoint.Checkpoint, error) {
	for n := 1; ; n++ {
		c, err := lookUp(ctx, task, at)
		if err == nil {
			err = c.Restore(ctx, dir, opts)
		}
		if at == "" && n < 3 && errors.Is(err, checkpoint.ErrGone) {
			continue
		}
		return c, err
	}
}
