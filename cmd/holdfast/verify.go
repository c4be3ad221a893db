package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func (p *program) verifyCommand() *cobra.Command {
	var opts verifyOptions
	cmd := &cobra.Command{
		Use:   "verify URL [TASK]",
		Short: "Find what is missing or damaged of a task, or of any task",
		Long: `Find out whether all that the checkpoints of TASK need, or of any task of the
job, is in the store. Manifests, lists of files and tables are read and checked;
segments are listed, and their sizes compared. With --data, all data is read and
checked too.

It may run at any time, beside jobs, saves and restores, and changes nothing.
With --restorable, the newest checkpoint is read as a restore does, without
writing it anywhere, and if it is intact, the store keeps a record of that.

With --repair, checkpoints that are damaged are dropped, and what no checkpoint needs
any more is deleted. If the newest checkpoint is damaged, the task goes back to the
newest one that is intact: WHAT WAS SAVED SINCE IS LOST. So bring missing objects
back from a backup first, if there is one. A task that is claimed and damaged is
refused, because its owner, if it still runs, could not commit any more and would
have to be started again; with --take-over it is repaired all the same.

If a part of the list of TASK's checkpoints is lost, nobody can save to it, and --repair
refuses it. With --give-up-list it keeps the newest checkpoint, and the others that can
still be read of the list. THE REST IS GIVEN UP, savepoints among them. If the newest is
damaged, the task goes back to the newest intact one that is still known: WHAT WAS SAVED
SINCE IS LOST.`,
		Example: `  holdfast verify file:///var/lib/orders
  holdfast verify file:///var/lib/orders orders/7 --data
  holdfast verify orders/7 --data --repair
  holdfast verify orders/7 --repair --give-up-list`,
		RunE: func(cmd *cobra.Command, args []string) error {
			url, args, err := p.arguments(cmd, args, "[TASK]")
			if err != nil {
				return err
			}
			if opts.fence && !opts.repair {
				return wrongUsage(cmd, "--take-over is for --repair")
			}
			if opts.giveUpList && (!opts.repair || len(args) == 0) {
				return wrongUsage(cmd, "--give-up-list is for --repair of one TASK")
			}
			return p.verify(cmd.Context(), url, taskOrNone(args), opts)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&opts.Data, "data", false, "read all data; what checkpoints share is read once")
	f.BoolVar(&opts.restorable, "restorable", false, "read the newest checkpoint as a restore does, and record that it could be restored")
	f.BoolVar(&opts.repair, "repair", false, "drop checkpoints that are damaged, and delete what is garbage")
	f.BoolVar(&opts.giveUpList, "give-up-list", false, "with --repair: give up the checkpoints that only a lost part of the list has")
	f.BoolVar(&opts.fence, "take-over", false, "repair a task although it is claimed: its owner is fenced")
	p.output(cmd)
	return cmd
}

type verifyOptions struct {
	checkpoint.VerifyOptions
	restorable, repair, fence, giveUpList bool
}

// A verifyLine says what was found of a task.
type verifyLine struct {
	Task string `json:"task"`
	*checkpoint.VerifyReport
	Repaired *checkpoint.RepairResult `json:"repaired,omitempty"`
	Error    string                   `json:"error,omitempty"` // why it could not be verified or repaired

	err error
}

func (p *program) verify(ctx context.Context, url, name string, opts verifyOptions) error {
	return p.withJob(ctx, url, checkpoint.Retention{}, func(job *checkpoint.Job) error {
		tasks, err := tasksOf(ctx, job, name)
		if err != nil {
			return err
		}
		if len(tasks) == 0 {
			// A URL with a slip in it looks like a job without tasks, and must not
			// pass for one that is in order.
			none := said{"nothing was verified: there are no tasks under " + url, checkpoint.ErrNoCheckpoint}
			return advice{none, "correct the URL, or save first"}
		}
		lines := eachTask(p, "verifying", tasks, func(task *checkpoint.Task) verifyLine { return verifyTask(ctx, task, opts) })
		if ctx.Err() != nil && !opts.repair {
			return advice{ctx.Err(), "nothing was changed, and not all was verified"}
		}
		if name != "" && lines[0].VerifyReport == nil {
			return absent(ctx, tasks[0], lines[0].err)
		}
		if lines = existingOf(lines); len(lines) == 0 {
			return said{"nothing was verified: " + deletedTasks(url, name), checkpoint.ErrNoCheckpoint}
		}
		for _, l := range lines {
			p.noteOtherObjects(l)
			p.noteInFlight(l)
			p.noteHolds(l)
		}
		p.noteVersions(job)
		human := func(w *bytes.Buffer) { verifyTables(w, lines) }
		if opts.repair {
			err = p.printDone("what could be repaired was repaired", lines, human)
		} else {
			err = p.print(lines, human)
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return advice{ctx.Err(), "what was repaired stays so, and the same command goes on with the rest"}
		}
		// That something is damaged matters more than that something could not be read.
		if i := slices.IndexFunc(lines, func(l verifyLine) bool { return errors.Is(l.err, checkpoint.ErrCorrupt) }); i > 0 {
			lines[0], lines[i] = lines[i], lines[0]
		}
		return p.firstFailure(len(lines), func(i int) error { return lines[i].err })
	})
}

func verifyTask(ctx context.Context, task *checkpoint.Task, opts verifyOptions) verifyLine {
	line := verifyLine{Task: task.Name()}
	verify := task.Verify
	if opts.restorable {
		verify = task.TestRestore
	}
	line.VerifyReport, line.err = verify(ctx, opts.VerifyOptions)
	if line.err == nil && opts.repair {
		line.err = line.repair(ctx, task, checkpoint.RepairOptions{Fence: opts.fence, GiveUpList: opts.giveUpList})
	}
	if line.err != nil {
		line.Error = oneLine(line.err.Error())
		return line
	}
	switch {
	case line.Repaired == nil || len(line.Repaired.Left) > 0:
		line.err = line.damage()
	case line.Lost.Segments > 0: // what else was wrong is repaired
		left := *line.VerifyReport
		left.Problems = nil
		line.err = advice{left.Err(), afterLoss}
	}
	return line
}

// existingOf returns the lines of tasks that were not deleted, or of which something is wrong
// all the same.
func existingOf(lines []verifyLine) []verifyLine {
	return slices.DeleteFunc(lines, func(l verifyLine) bool {
		return l.VerifyReport != nil && l.Deleted && l.err == nil && l.Garbage.Segments == 0 &&
			(l.Repaired == nil || l.Repaired.Collected.Segments+l.Repaired.Collected.Manifests == 0)
	})
}

// deletedTasks says that a task, or all of a job, was deleted.
func deletedTasks(url, name string) string {
	if name != "" {
		return fmt.Sprintf("task %q was deleted", name)
	}
	return "all tasks under " + url + " were deleted"
}

// afterLoss says what to do when manifests were lost.
const afterLoss = "bring them back, from the bucket's versions or a backup; if what they committed is not wanted, " +
	"'holdfast gc --lost' deletes what is left of it"

// damage returns an error if anything is damaged.
func (l *verifyLine) damage() error {
	err := l.Err()
	if err == nil {
		return nil
	}
	return advice{err, l.next()}
}

// next says what can be done about what is damaged.
func (l *verifyLine) next() string {
	switch {
	case len(l.Problems) == 0 && l.Lost.Segments > 0:
		return afterLoss
	case len(l.Problems) == 0: // the error says what to do
		return ""
	case slices.ContainsFunc(l.Damaged, func(seq uint64) bool { return seq > l.Manifest }): // the newest manifest
		return "bring that object back from a backup; if there is none, let the job commit once more or, " +
			"if nothing writes to the task, move the object out of the store, and then verify with --repair"
	case slices.ContainsFunc(l.Problems, func(p checkpoint.Problem) bool { return len(p.Affects) == 0 }): // the list of checkpoints
		return "bring that object back from a backup; if there is none, 'holdfast verify TASK --repair --give-up-list' keeps the checkpoints " +
			"that 'holdfast ls TASK' still shows, and gives up the others"
	case l.Intact == 0:
		return "bring what is missing or damaged back from a backup; or, if the state is still there, save it with 'holdfast save --full'"
	case l.Repaired != nil && l.keptFor() != "":
		return fmt.Sprintf("what is left is kept for the fork %q: delete that ('holdfast rm'), and then verify with --repair", l.keptFor())
	case l.Repaired != nil: // what is left is intact as long as the newest manifest repeats it
		return "what is left can be restored until the next save: save again, and then verify with --repair"
	default:
		return "bring what is missing or damaged back from a backup; if there is none, 'holdfast verify --data --repair' drops the checkpoints that need it"
	}
}

// keptFor returns a fork for which a damaged checkpoint is kept that is left, or "".
func (l *verifyLine) keptFor() string {
	for _, f := range l.Forks {
		if slices.Contains(l.Repaired.Left, f.Seq) {
			return f.Task
		}
	}
	return ""
}

func (l *verifyLine) repair(ctx context.Context, task *checkpoint.Task, opts checkpoint.RepairOptions) error {
	done, err := task.Repair(ctx, l.VerifyReport, opts)
	l.Repaired = &done
	if errors.Is(err, checkpoint.ErrUnknown) {
		// That it may have been saved, and is to be looked for, is said of saves.
		return said{text: err.Error() + "; it may have been repaired: verify it again"}
	}
	if errors.Is(err, checkpoint.ErrCorrupt) {
		return advice{err, l.next()}
	}
	return err
}

// noteOtherObjects mentions what has come to be among a task's objects. It may be in
// someone's way, and nothing deletes it.
func (p *program) noteOtherObjects(l verifyLine) {
	if l.VerifyReport == nil || len(l.OtherObjects) == 0 {
		return
	}
	more := ""
	if n := len(l.OtherObjects) - 1; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	p.note("task %q: %s%s: holdfast has not made that, and leaves it alone", l.Task, l.OtherObjects[0], more)
}

// noteHolds mentions what is kept for forks that do not need it any more.
func (p *program) noteHolds(l verifyLine) {
	if l.VerifyReport == nil {
		return
	}
	for _, h := range l.NeedlessHolds {
		if h.Lost {
			p.note("task %q: checkpoint %d is kept for %q, whose manifests someone has removed; 'holdfast gc --lost' of %q ends that", l.Task, h.Seq, h.Task, l.Task)
			continue
		}
		p.note("task %q: checkpoint %d is kept for %q, which does not need it; 'holdfast gc' ends that", l.Task, h.Seq, h.Task)
	}
}

// noteInFlight mentions what has been in flight for longer than a save should take.
func (p *program) noteInFlight(l verifyLine) {
	if l.VerifyReport == nil || l.InFlightSince.IsZero() || time.Since(l.InFlightSince) <= checkpoint.FenceWindow {
		return
	}
	p.note("task %q: %s in flight since %s: a save or a commit is slow, or was killed, or its manifest was lost",
		l.Task, counted(l.InFlight.Segments, "segment is", "segments are"), clock(l.InFlightSince))
}

func verifyTables(w *bytes.Buffer, lines []verifyLine) {
	tasks := [][]string{{"TASK", "CHECKPOINTS", "INTACT", "LIVE", "GARBAGE", "IN FLIGHT", "UNCLEAR", "DATA READ"}}
	problems := [][]string{{"TASK", "PROBLEM", "AFFECTS", "OBJECT"}}
	for _, l := range lines {
		if l.VerifyReport == nil {
			tasks = append(tasks, []string{printable(l.Task), "not verified", "", "", "", "", "", ""})
			continue
		}
		tasks = append(tasks, []string{
			printable(l.Task), strconv.Itoa(l.Checkpoints), strconv.Itoa(l.Intact), size(l.Live.Bytes), size(l.Garbage.Bytes),
			size(l.InFlight.Bytes), size(l.Unclear.Bytes), size(l.DataRead),
		})
		for _, found := range l.Problems {
			problems = append(problems, []string{printable(l.Task), string(found.Kind), numbers(found.Affects), found.Object})
		}
	}
	if len(tasks) > 1 {
		table(w, tasks)
	}
	if len(problems) > 1 {
		fmt.Fprintln(w)
		table(w, problems)
	}
	for _, l := range lines {
		if l.VerifyReport != nil && l.RestoreTest != nil {
			fmt.Fprintf(w, "%s: checkpoint %d was found restorable at %s\n", printable(l.Task), l.RestoreTest.Seq, clock(l.RestoreTest.At))
		}
		if l.Repaired != nil {
			w.WriteString(l.repaired())
		}
	}
}

// repaired says what was done to a task.
func (l *verifyLine) repaired() string {
	var b strings.Builder
	done := l.Repaired
	say := func(format string, args ...any) {
		fmt.Fprintf(&b, "%s: %s\n", printable(l.Task), fmt.Sprintf(format, args...))
	}
	if len(done.Dropped) > 0 {
		say("dropped %s", checkpoints(done.Dropped))
	}
	if done.RolledBackTo != 0 {
		say("went back to checkpoint %d: what was saved after it is lost", done.RolledBackTo)
	}
	if done.ListGivenUp {
		say("kept what can be read of the list of checkpoints; the others are given up, and the next gc deletes what only they needed")
	}
	if len(done.Left) > 0 {
		say("not repaired: %s", checkpoints(done.Left))
	}
	if c := done.Collected; c.Segments+c.Manifests > 0 {
		say("deleted %s and %s: %s", counted(c.Segments, "segment", "segments"), counted(c.Manifests, "manifest", "manifests"), size(c.Bytes))
	}
	return b.String()
}

// checkpoints writes which checkpoints are meant.
func checkpoints(seqs []uint64) string {
	if len(seqs) == 1 {
		return "checkpoint " + numbers(seqs)
	}
	return "checkpoints " + numbers(seqs)
}

// numbers writes a list of checkpoints' numbers.
func numbers(seqs []uint64) string {
	var list []string
	for _, seq := range seqs {
		list = append(list, strconv.FormatUint(seq, 10))
	}
	return strings.Join(list, ",")
}
