package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) lsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls URL [TASK]",
		Short: "List the tasks of a job, or the checkpoints of a task",
		Long: `List the tasks of a job, each with its newest checkpoint, or the checkpoints of
TASK: first the newest, then the others by when they were the newest. That is the
order of their numbers, unless the task was rolled back.

A task is claimed if its last writer has not released it. That may be alive or not.`,
		Example: `  holdfast ls file:///var/lib/orders
  holdfast ls file:///var/lib/orders orders/7 --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "[TASK]")
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return p.listTasks(cmd.Context(), url)
			}
			return p.listCheckpoints(cmd.Context(), url, args[0], nil)
		},
	}
	p.output(cmd)
	return cmd
}

// listCheckpoints lists those checkpoints of a task of which wanted is true, or all of
// them if it is nil.
func (p *program) listCheckpoints(ctx context.Context, url, name string, wanted func(*checkpoint.Checkpoint) bool) error {
	return p.withTask(ctx, url, name, checkpoint.Retention{}, func(task *checkpoint.Task) error {
		list, err := listOf(ctx, task)
		if err != nil && len(list) == 0 {
			return absent(ctx, task, err)
		}
		what := "checkpoint yet"
		if wanted != nil {
			what = "savepoint"
			list = slices.DeleteFunc(list, func(c *checkpoint.Checkpoint) bool { return !wanted(c) })
		}
		if len(list) == 0 && err == nil && !p.asJSON {
			p.note("task %q has no %s", name, what)
		}
		if perr := p.print(list, func(w *bytes.Buffer) { checkpointTable(w, list, err == nil) }); perr != nil {
			return perr
		}
		return err // some are damaged
	})
}

// listOf returns a task's checkpoints. A task that was deleted is none.
func listOf(ctx context.Context, task *checkpoint.Task) ([]*checkpoint.Checkpoint, error) {
	list, err := task.List(ctx)
	if err != nil || len(list) > 0 {
		return list, err
	}
	status, err := task.Status(ctx)
	if err == nil && status.Deleted {
		err = checkpoint.ErrNoCheckpoint
	}
	return list, err
}

// checkpointTable writes a line for each checkpoint, the newest first, unless
// some are missing. After a rollback that one's number is not the highest, and
// it is marked: nobody would take it for the newest.
func checkpointTable(w *bytes.Buffer, list []*checkpoint.Checkpoint, complete bool) {
	if len(list) == 0 {
		return
	}
	newest := list[0].Seq
	mark := complete && slices.ContainsFunc(list, func(c *checkpoint.Checkpoint) bool { return c.Seq > newest })
	rows := [][]string{{"SEQ", "TIME", "FILES", "SIZE", "NEW", "SAVEPOINT", "OFFSETS", "LABELS"}}
	for i, c := range list {
		seq := strconv.FormatUint(c.Seq, 10)
		if i == 0 && mark {
			seq += " (newest)"
		}
		rows = append(rows, []string{
			seq, clock(c.Time), strconv.Itoa(c.Files), size(c.Bytes), size(c.NewBytes),
			savepoint(c), some(c.Offsets), some(c.Labels),
		})
	}
	table(w, rows)
}

// savepoint writes the name of a savepoint, and until when retention keeps it.
func savepoint(c *checkpoint.Checkpoint) string {
	if c.SavepointExpires.IsZero() {
		return printable(c.Savepoint)
	}
	return printable(c.Savepoint) + " (until " + clock(c.SavepointExpires) + ")"
}

// A taskLine is what ls says of a task.
type taskLine struct {
	Task       string                 `json:"task"`
	Epoch      uint64                 `json:"epoch"`
	Claimed    bool                   `json:"claimed"`
	WrittenBy  string                 `json:"written_by"`            // what its last writer said of itself
	ForkedFrom *checkpoint.ForkInfo   `json:"forked_from,omitempty"` // the task that it was forked from, if it needs that one's data
	Forks      []checkpoint.ForkInfo  `json:"forks,omitempty"`       // forks that need its data
	Newest     *checkpoint.Checkpoint `json:"newest"`                // nil if there is none
	Error      string                 `json:"error,omitempty"`       // why the task cannot be read

	err     error
	deleted bool
	absent  bool // it never was
	lost    bool // it has no manifest, and had some
}

func (p *program) listTasks(ctx context.Context, url string) error {
	return p.withJob(ctx, url, checkpoint.Retention{}, func(job *checkpoint.Job) error {
		list, deleted, err := p.taskLines(ctx, job)
		if err != nil {
			return err
		}
		if len(list) == 0 && !p.asJSON {
			p.noteNoTasks(url, deleted)
		}
		if err := p.print(list, func(w *bytes.Buffer) { taskTable(w, list) }); err != nil {
			return err
		}
		return p.firstFailure(len(list), func(i int) error { return list[i].err })
	})
}

// noteNoTasks says that there are no tasks, and whether there were some.
func (p *program) noteNoTasks(url string, deleted bool) {
	if deleted {
		p.note("%s", deletedTasks(url, ""))
		return
	}
	p.note("there are no tasks under %s yet", url)
}

// taskLines describes all tasks that were not deleted, and reports whether some were. One
// that cannot be read does not hide the others: its line says why.
func (p *program) taskLines(ctx context.Context, job *checkpoint.Job) (list []taskLine, deleted bool, err error) {
	tasks, err := tasksOf(ctx, job, "")
	if err != nil {
		return nil, false, err
	}
	list = eachTask(p, "listing", tasks, func(task *checkpoint.Task) taskLine { return describeTask(ctx, task) })
	deleted = slices.ContainsFunc(list, func(l taskLine) bool { return l.deleted })
	return slices.DeleteFunc(list, func(l taskLine) bool { return l.deleted || l.absent }), deleted, ctx.Err()
}

func describeTask(ctx context.Context, task *checkpoint.Task) taskLine {
	status, err := task.Status(ctx)
	line := taskLine{Task: task.Name(), Epoch: status.Epoch, Claimed: status.Claimed, WrittenBy: status.WrittenBy, ForkedFrom: status.ForkedFrom, Forks: status.Forks, Newest: status.Latest, err: err}
	if err != nil {
		line.Error, line.lost = oneLine(err.Error()), errors.Is(err, checkpoint.ErrLost)
	} else {
		line.deleted, line.absent = status.Deleted, status.Manifest == 0
	}
	return line
}

func taskTable(w *bytes.Buffer, list []taskLine) {
	if len(list) == 0 {
		return
	}
	rows := [][]string{{"TASK", "NEWEST", "TIME", "FILES", "SIZE", "SAVEPOINT", "EPOCH", "CLAIMED BY"}}
	for _, l := range list {
		rows = append(rows, l.row())
	}
	table(w, rows)
}

func (l *taskLine) row() []string {
	if l.lost {
		return []string{printable(l.Task), "no manifest", "", "", "", "", "", ""}
	}
	if l.Error != "" {
		return []string{printable(l.Task), "unreadable", "", "", "", "", "", ""}
	}
	row := []string{printable(l.Task), "none", "", "", "", "", strconv.FormatUint(l.Epoch, 10), l.claimedBy()}
	if c := l.Newest; c != nil {
		copy(row[1:], []string{strconv.FormatUint(c.Seq, 10), clock(c.Time), strconv.Itoa(c.Files), size(c.Bytes), savepoint(c)})
	}
	return row
}

// claimedBy says who has claimed the task and not released it, or "".
func (l *taskLine) claimedBy() string {
	switch {
	case !l.Claimed:
		return ""
	case l.WrittenBy == "":
		return "unknown"
	}
	return printable(l.WrittenBy)
}
