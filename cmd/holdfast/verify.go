package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) verifyCommand() *cobra.Command {
	var opts checkpoint.VerifyOptions
	cmd := &cobra.Command{
		Use:   "verify URL [TASK]",
		Short: "Find what is missing or damaged of a task, or of any task",
		Long: `Find out whether all that the checkpoints of TASK need, or of any task of the
job, is in the store. Manifests, lists of files and tables are read and checked;
segments are listed, and their sizes compared. With --data, all data is read and
checked too.

It may run at any time, beside jobs, saves and restores, and changes nothing.`,
		Example: `  holdfast verify file:///var/lib/orders
  holdfast verify file:///var/lib/orders orders/7 --data`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "[TASK]")
			if err != nil {
				return err
			}
			return p.verify(cmd.Context(), url, taskOrNone(args), opts)
		},
	}
	cmd.Flags().BoolVar(&opts.Data, "data", false, "read all data; what checkpoints share is read once")
	p.output(cmd)
	return cmd
}

// A verifyLine says what was found of a task.
type verifyLine struct {
	Task string `json:"task"`
	*checkpoint.Report
	Error string `json:"error,omitempty"` // why it could not be verified

	err error
}

func (p *program) verify(ctx context.Context, url, name string, opts checkpoint.VerifyOptions) error {
	return p.withJob(ctx, url, checkpoint.Retention{}, func(job *checkpoint.Job) error {
		tasks, err := tasksOf(ctx, job, name)
		if err != nil {
			return err
		}
		lines := eachTask(tasks, func(task *checkpoint.Task) verifyLine { return verifyTask(ctx, task, opts) })
		if name != "" && lines[0].Report == nil {
			return absent(ctx, tasks[0], lines[0].err)
		}
		for _, l := range lines {
			p.noteForeign(l)
		}
		if err := p.print(lines, func(w *bytes.Buffer) { verifyTables(w, lines) }); err != nil {
			return err
		}
		return firstFailure(len(lines), func(i int) error { return lines[i].err })
	})
}

func verifyTask(ctx context.Context, task *checkpoint.Task, opts checkpoint.VerifyOptions) verifyLine {
	line := verifyLine{Task: task.Name()}
	line.Report, line.err = task.Verify(ctx, opts)
	switch {
	case line.err != nil:
		line.Error = oneLine(line.err.Error())
	default:
		line.err = line.Err()
	}
	return line
}

// noteForeign mentions what has come to be among a task's objects. It may be in
// someone's way, and nothing deletes it.
func (p *program) noteForeign(l verifyLine) {
	if l.Report == nil || len(l.Foreign) == 0 {
		return
	}
	more := ""
	if n := len(l.Foreign) - 1; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	p.note("task %q: %s%s: holdfast has not made that, and leaves it alone", l.Task, l.Foreign[0], more)
}

func verifyTables(w *bytes.Buffer, lines []verifyLine) {
	tasks := [][]string{{"TASK", "CHECKPOINTS", "WHOLE", "LIVE", "GARBAGE", "IN FLIGHT", "UNCLEAR", "DATA READ"}}
	problems := [][]string{{"TASK", "PROBLEM", "HURTS", "OBJECT"}}
	for _, l := range lines {
		if l.Report == nil {
			tasks = append(tasks, []string{printable(l.Task), "unreadable", "", "", "", "", "", ""})
			continue
		}
		tasks = append(tasks, []string{
			printable(l.Task), strconv.Itoa(l.Checkpoints), strconv.Itoa(l.Whole), size(l.Live.Bytes), size(l.Garbage.Bytes),
			size(l.InFlight.Bytes), size(l.Unclear.Bytes), size(l.DataRead),
		})
		for _, found := range l.Problems {
			problems = append(problems, []string{printable(l.Task), string(found.Kind), numbers(found.Hurts), found.Object})
		}
	}
	if len(tasks) > 1 {
		table(w, tasks)
	}
	if len(problems) > 1 {
		fmt.Fprintln(w)
		table(w, problems)
	}
}

// numbers writes a list of checkpoints' numbers.
func numbers(seqs []uint64) string {
	var list []string
	for _, seq := range seqs {
		list = append(list, strconv.FormatUint(seq, 10))
	}
	return strings.Join(list, ",")
}
