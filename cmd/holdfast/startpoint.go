package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) startpointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "startpoint",
		Short: "Set from where an input partition is read, for once",
		Long: `A startpoint says from where a task reads an input partition, in place of the offset
in its checkpoint. It is used when the task is started the next time: a job that runs
is not disturbed. It is removed once the task has committed a checkpoint in which that
partition made progress; until then it is used again. The state is that of the
checkpoint all the same: make sure that it fits.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return wrongUsage(cmd, "%q is not set, ls or rm", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.startpointSetCommand(), p.startpointLsCommand(), p.startpointRmCommand())
	return cmd
}

func (p *program) startpointSetCommand() *cobra.Command {
	at := ""
	cmd := &cobra.Command{
		Use:   "set URL TASK PARTITION",
		Short: "Set a startpoint",
		Long: `Let TASK read PARTITION, an input as its checkpoints name it, from where --at says:
oldest is the oldest that the input still has, newest is what comes next, a time such
as 2026-11-22T10:00:00Z is what came then or next after it, and anything else is an
offset. An offset that looks like one of these is written as offset:TEXT.

It counts in place of an earlier startpoint of the partition.`,
		Example: `  holdfast startpoint set file:///var/lib/orders orders/7 orders/7 --at oldest
  holdfast startpoint set orders/7 orders/7 --at 4711
  holdfast startpoint set orders/7 orders/7 --at 2026-11-22T10:00:00Z`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK", "PARTITION")
			if err != nil {
				return err
			}
			if at == "" {
				return wrongUsage(cmd, "say from where to read: --at oldest, newest, an offset or a time")
			}
			if lower := strings.ToLower(at); lower != at && (lower == "oldest" || lower == "newest") {
				return wrongUsage(cmd, "--at %s: write %s, or offset:%s if that is an offset", at, lower, at)
			}
			return p.setStartpoint(cmd.Context(), url, args[0], startpointAt(args[1], at))
		},
	}
	cmd.Flags().Func("at", "from where to read: oldest, newest, an offset or a time, `WHERE`", nonEmpty(&at))
	p.output(cmd)
	return cmd
}

// startpointAt returns the startpoint that a person has described.
func startpointAt(partition, at string) checkpoint.Startpoint {
	s := checkpoint.Startpoint{Partition: partition, At: checkpoint.StartAt(at)}
	if s.At == checkpoint.StartAtOldest || s.At == checkpoint.StartAtNewest {
		return s
	}
	var err error
	if s.Time, err = time.Parse(time.RFC3339, at); err == nil {
		s.At = checkpoint.StartAtTime
		return s
	}
	s.At, s.Offset = checkpoint.StartAtOffset, strings.TrimPrefix(at, "offset:")
	return s
}

func (p *program) setStartpoint(ctx context.Context, url, name string, s checkpoint.Startpoint) error {
	return p.withTask(ctx, url, name, checkpoint.Retention{}, func(task *checkpoint.Task) error {
		s, err := task.SetStartpoint(ctx, s)
		if err != nil {
			return absent(ctx, task, lookForStartpoints(err))
		}
		return p.printDone(fmt.Sprintf("a startpoint of task %q was set", name), s, func(w *bytes.Buffer) {
			fmt.Fprintf(w, "task %s reads %s from %s when it is started next\n", strconv.Quote(name), printable(s.Partition), where(&s))
		})
	})
}

// where says from where a startpoint lets a partition be read.
func where(s *checkpoint.Startpoint) string {
	switch s.At {
	case checkpoint.StartAtOffset:
		return "offset " + printable(s.Offset)
	case checkpoint.StartAtTime:
		return s.Time.Format(time.RFC3339Nano)
	}
	return "the " + string(s.At)
}

func (p *program) startpointLsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls URL TASK",
		Short: "List the startpoints of a task",
		Long: `List the startpoints of TASK that were not used up yet, in the order in which they were
set. Of several of one partition, the last one counts.`,
		Example: `  holdfast startpoint ls file:///var/lib/orders orders/7`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK")
			if err != nil {
				return err
			}
			return p.listStartpoints(cmd.Context(), url, args[0])
		},
	}
	p.output(cmd)
	return cmd
}

func (p *program) listStartpoints(ctx context.Context, url, name string) error {
	return p.withTask(ctx, url, name, checkpoint.Retention{}, func(task *checkpoint.Task) error {
		list, damage := task.Startpoints(ctx)
		if len(list) == 0 && damage != nil {
			return damage
		}
		if len(list) == 0 {
			if err := requireTask(ctx, task); err != nil {
				return err
			}
			list = []checkpoint.Startpoint{}
		}
		if len(list) == 0 && !p.asJSON {
			p.note("task %q has no startpoint", name)
			return nil
		}
		err := p.print(list, func(w *bytes.Buffer) {
			rows := [][]string{{"PARTITION", "FROM", "SET", "BY", "ID"}}
			for i := range list {
				s := &list[i]
				rows = append(rows, []string{printable(s.Partition), where(s), clock(s.SetAt), printable(s.SetBy), s.ID})
			}
			table(w, rows)
		})
		if err == nil {
			err = damage
		}
		return err
	})
}

func (p *program) startpointRmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm URL TASK PARTITION|ID",
		Short: "Remove a startpoint",
		Long: `Remove all startpoints of PARTITION, or the one with the ID that ls prints: TASK goes
by its checkpoint again. A task that was started meanwhile may have used it.`,
		Example: `  holdfast startpoint rm file:///var/lib/orders orders/7 orders/7`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "TASK", "PARTITION|ID")
			if err != nil {
				return err
			}
			return p.removeStartpoints(cmd.Context(), url, args[0], args[1])
		},
	}
	p.output(cmd)
	return cmd
}

func (p *program) removeStartpoints(ctx context.Context, url, name, which string) error {
	return p.withTask(ctx, url, name, checkpoint.Retention{}, func(task *checkpoint.Task) error {
		list, damage := task.Startpoints(ctx)
		ids := []string{}
		for _, s := range list {
			if s.Partition == which || s.ID == which {
				ids = append(ids, s.ID)
			}
		}
		if len(ids) == 0 && damage != nil { // an id of one that cannot be read is a way out
			ids = append(ids, which)
		}
		if len(ids) == 0 {
			none := said{fmt.Sprintf("task %q has no startpoint of %s", name, printable(which)), checkpoint.ErrNoCheckpoint}
			return advice{none, "'holdfast startpoint ls' lists what there is"}
		}
		err := task.RemoveStartpoints(ctx, ids...)
		if errors.Is(err, backend.ErrInvalid) { // it is no id
			return damage
		}
		if err != nil {
			return lookForStartpoints(err)
		}
		removed := fmt.Sprintf("%d startpoints of task %q were removed", len(ids), name)
		if len(ids) == 1 {
			removed = fmt.Sprintf("1 startpoint of task %q was removed", name)
		}
		return p.printDone(removed, ids, func(w *bytes.Buffer) {
			fmt.Fprintf(w, "removed %s of task %s\n", counted(len(ids), "startpoint", "startpoints"), strconv.Quote(name))
		})
	})
}

// lookForStartpoints returns err. If the outcome of a change to startpoints is unknown, it says
// where to look.
func lookForStartpoints(err error) error {
	if !errors.Is(err, checkpoint.ErrUnknown) {
		return err
	}
	return advice{err, "it may have been done: look with 'holdfast startpoint ls' before you do it again"}
}

// requireTask returns ErrNoCheckpoint if there is no such task, or if it was deleted.
func requireTask(ctx context.Context, task *checkpoint.Task) error {
	status, err := task.Status(ctx)
	if err == nil && (status.Manifest == 0 || status.Deleted) {
		return absent(ctx, task, checkpoint.ErrNoCheckpoint)
	}
	return err
}
