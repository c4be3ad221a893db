package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/process"
)

// runFlags say how a program is run.
type runFlags struct {
	state            string
	every            time.Duration
	whenAsked        bool
	signal           syscall.Signal // 0 for none
	pause            bool
	pre, post        string
	limit            time.Duration
	grace            time.Duration
	adopt, takeOver  bool
	standby          bool
	silence          time.Duration // 0 for none
	noSaveOnFailure  bool
	metrics          string // where to listen; "" for nowhere
	exclude          []string
	immutable        []string
	keep             checkpoint.Retention
	url, task        string
	command          []string
	runDir, stateDir string // absolute, without links
}

func (p *program) runCommand() *cobra.Command {
	o := runFlags{every: time.Minute, limit: 10 * time.Second, grace: 10 * time.Second}
	cmd := &cobra.Command{
		Use:   "run URL TASK --state DIR [flags] -- COMMAND...",
		Short: "Run a program, with checkpoints of its directory",
		Long: `Run COMMAND, and keep checkpoints of DIR, where it keeps its state: claim TASK,
restore DIR to the newest checkpoint, start COMMAND, save a checkpoint every so often
and one when COMMAND has ended, and end with its exit code.

DIR is made if it is absent. What is in it is replaced only if an earlier run of this
task has left it; anything else is refused, and never removed. With --adopt, what is in
DIR becomes the first checkpoint of a new task.

When a checkpoint is saved, DIR must be consistent. There are three ways; choose one:

  (no flag)     DIR may be copied at any time: COMMAND writes files beside their places,
                and renames them
  --pause       COMMAND and all processes of its group stand still while DIR is copied,
                for --limit at most: for SQLite, say, and for any program that writes
                files in place; with --pre and --post, in place of it or beside it,
                commands run before and after that
  --when-asked  COMMAND says when, by HTTP: POST to $HOLDFAST_RUN_ADDRESS/commit, with
                offset=KEY=VALUE and label=KEY=VALUE, and wait for the answer

Sockets and pipes cannot be saved: leave them out by --exclude, such as '*.sock'. Beside
DIR is .DIR.holdfast, with a copy of what has changed.

With --standby, run does not begin while the task has an owner: it follows it, and keeps a
copy of the newest checkpoint beside DIR. It takes over when the owner has ended, when it
has given no sign of life for --silence, or when run gets SIGUSR1; the owner is fenced then.

COMMAND finds in its environment HOLDFAST_STATE (DIR), HOLDFAST_TASK,
HOLDFAST_CHECKPOINT (the number of what was restored; 0 for none), HOLDFAST_RUN_ADDRESS, and
HOLDFAST_RUN_HEADER, a file with the header that each request has:

  curl -fsS -H "@$HOLDFAST_RUN_HEADER" -d label=step=3 "$HOLDFAST_RUN_ADDRESS/commit"

GET .../resume says what to go on from, and .../health how it goes. HOLDFAST_RUN_URL has the
secret of that header in it, and needs none; but command lines are seen by all users.

SIGTERM: it is passed on to COMMAND, which has --grace to end before it is killed. A
last checkpoint is saved within as much time again. If COMMAND ends by itself, the last
checkpoint has all the time it needs. Other signals are passed on.

Exit codes: those of COMMAND (128+N if signal N has killed it), whatever they are. run's
own are 120 the last checkpoint was not saved, 121 failed, 122 wrong usage, 123 no
such checkpoint, 124 fenced, or the task is claimed, 125 corrupt, 126 COMMAND cannot be
run, 127 COMMAND was not found; then it says why on stderr.

A tutorial, and how a program asks: https://github.com/holdfast-io/holdfast/blob/main/docs/run.md`,
		Example: `  holdfast run file:///var/lib/jobs train --state ./model --every 5m -- python3 train.py
  holdfast run jobs/db --state ./db --pause -- ./server --data ./db
  holdfast run jobs/crawl --state ./crawl --when-asked -- ./crawl.sh`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.runArguments(cmd, args, &o); err != nil {
				return ownCode{err}
			}
			return p.runProgram(cmd.Context(), &o)
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return ownCode{wrongUsage(cmd, "%v", err)} })
	o.addFlags(cmd)
	return cmd
}

func (o *runFlags) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Func("state", "the directory `DIR` where COMMAND keeps its state", nonEmpty(&o.state))
	f.Func("every", "save a checkpoint every `D`: 30s, 5m, 2h (default 1m)", duration(&o.every))
	f.BoolVar(&o.whenAsked, "when-asked", false, "save a checkpoint when COMMAND asks for one, and at no other time")
	f.Func("signal", "with --when-asked: send COMMAND the signal `S`, such as USR1, every D, to ask for a commit; without a handler COMMAND dies of it", o.setSignal)
	f.BoolVar(&o.pause, "pause", false, "stop all processes of COMMAND (SIGSTOP) while DIR is copied")
	f.Func("pre", "run `CMD` by sh before DIR is copied; if it fails, no checkpoint is saved, the last one excepted", nonEmpty(&o.pre))
	f.Func("post", "run `CMD` by sh after DIR was copied, also if --pre or the copying has failed", nonEmpty(&o.post))
	f.Func("limit", "pause COMMAND for `D` at most, and let --pre and --post take no longer (default 10s)", duration(&o.limit))
	f.Func("grace", "at SIGTERM, the time `D` that COMMAND has to end, and again that the last checkpoint has (default 10s)", duration(&o.grace))
	f.BoolVar(&o.adopt, "adopt", false, "make what is in DIR the first checkpoint of a new task")
	f.BoolVar(&o.takeOver, "take-over", false, "run although the task is claimed: its owner is fenced")
	f.BoolVar(&o.standby, "standby", false, "if the task has an owner, follow it, and take over when that has ended, is silent, or at SIGUSR1")
	f.Func("silence", "an owner gives a sign of life several times in `D`, and with --standby is taken to be dead after D without one; give all runs of a task the same", duration(&o.silence))
	f.BoolVar(&o.noSaveOnFailure, "no-save-on-failure", false, "save no last checkpoint if COMMAND fails")
	f.Func("metrics", "answer at `ADDR`, such as 127.0.0.1:9464: /metrics for Prometheus, and /ready, which is 200 while COMMAND runs on the restored state", listenAddress(&o.metrics))
	f.Func("exclude", "files and directories with names like `PATTERN`, such as '*.tmp', are no part of the state, and are gone when the next run restores DIR; may be repeated", patterns(&o.exclude))
	f.Func("immutable", "files with names like `PATTERN`, such as '*.sst', are never written again: link, and do not copy them; may be repeated", patterns(&o.immutable))
	keepFlags(cmd, &o.keep)
}

func (o *runFlags) setSignal(name string) error {
	sig, ok := process.SignalByName(name)
	if !ok {
		return errors.New("it must be the name of a signal, such as USR1")
	}
	if short := strings.TrimPrefix(name, "SIG"); short == "KILL" || short == "STOP" {
		return errors.New("no program can handle that one; give another, such as USR1")
	}
	o.signal = sig
	return nil
}

// runArguments checks all that can be checked before anything is done.
func (p *program) runArguments(cmd *cobra.Command, args []string, o *runFlags) (err error) {
	dash := cmd.ArgsLenAtDash()
	if dash < 0 {
		return wrongUsage(cmd, "the command to run is missing: put it after --")
	}
	o.command = args[dash:]
	var rest []string
	if o.url, rest, err = p.arguments(cmd, args[:dash], "TASK"); err != nil {
		return err
	}
	o.task = rest[0]
	switch {
	case len(o.command) == 0 || o.command[0] == "":
		return wrongUsage(cmd, "the command to run is missing: put it after --")
	case o.state == "":
		return wrongUsage(cmd, "--state is missing: name the directory where the command keeps its state")
	case o.every < time.Millisecond:
		return wrongUsage(cmd, "--every %v is too short; give a millisecond or more", o.every)
	case o.silence != 0 && o.silence < leastSilence:
		return wrongUsage(cmd, "--silence %v is too short; give %v or more", o.silence, leastSilence)
	case o.standby && (o.adopt || o.takeOver):
		return wrongUsage(cmd, "--standby goes with neither --adopt nor --take-over: a standby goes on from what the owner has saved, when its turn has come")
	case o.whenAsked && (o.pause || o.pre != "" || o.post != ""):
		return wrongUsage(cmd, "--when-asked goes with none of --pause, --pre and --post: a command that says when it is consistent stands still by itself")
	case o.signal != 0 && !o.whenAsked:
		return wrongUsage(cmd, "--signal goes with --when-asked: the command answers the signal by asking for a commit")
	case cmd.Flags().Changed("limit") && !o.pause && o.pre == "" && o.post == "":
		return wrongUsage(cmd, "--limit goes with --pause, --pre or --post: without them nothing is to be limited")
	case o.noSaveOnFailure && o.whenAsked:
		return wrongUsage(cmd, "--no-save-on-failure does not go with --when-asked, which saves nothing by itself")
	}
	if err := o.findDirs(); err != nil {
		return err
	}
	if err := o.checkAdopted(); err != nil {
		return err
	}
	return o.findCommand()
}

// leastSilence is the shortest time after which an owner may be taken to be dead: a store that
// is slow, or a busy machine, is silent for some hundreds of milliseconds.
const leastSilence = time.Second

// findDirs finds out where the state is, and the run directory beside it.
func (o *runFlags) findDirs() error {
	o.stateDir = real(o.state)
	parent, name := filepath.Split(o.stateDir)
	if here, err := os.Getwd(); err == nil && holds(o.stateDir, real(here)) {
		return backend.Invalidf("--state %s is the working directory, or holds it, so it cannot be replaced; run in another directory", o.state)
	}
	if name == "" {
		return backend.Invalidf("--state %s cannot be replaced; give a directory in it", o.state)
	}
	o.runDir = filepath.Join(parent, "."+name+".holdfast")
	if info, err := os.Stat(o.stateDir); err == nil && !info.IsDir() {
		return backend.Invalidf("--state %s is no directory; give one, or the name of one that is to be made", o.state)
	}
	return cmp.Or(checkApart(o.url, o.stateDir), checkApart(o.url, o.runDir))
}

// The exit codes that run alone has. The last two are those of a shell.
const (
	exitUnsaved   = 120 // the program has ended, and its last checkpoint was not saved, as far as is known
	exitCannotRun = 126
	exitNotFound  = 127
)

func (o *runFlags) findCommand() error {
	path, err := process.LookPath(o.command[0])
	if err == nil {
		err = checkInterpreter(path)
	}
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return ended{exitNotFound, fmt.Errorf("there is no command %q; correct its name, or give its path", o.command[0])}
	case err != nil:
		return ended{exitCannotRun, fmt.Errorf("command %q cannot be run: %w", o.command[0], err)}
	}
	return nil
}

// ownCode is an error of run itself, whose exit code is not to be taken for the program's.
type ownCode struct{ error }

func (e ownCode) Unwrap() error { return e.error }

// ownCodes is what is added to the exit code that another command would end with.
const ownCodes = 120

// ended is how a command ends with a code that is not by the kind of an error: with that of
// the program that was run, say. err is nil if there is nothing to be told.
type ended struct {
	code int
	err  error
}

func (e ended) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e ended) Unwrap() error { return e.err }

// runProgram runs the program, and returns how it has ended.
func (p *program) runProgram(ctx context.Context, o *runFlags) error {
	if process.IsInit() {
		code, err := process.Init()
		if err != nil {
			return ownCode{err}
		}
		return ended{code: code}
	}
	err := p.withJob(ctx, o.url, o.keep, func(job *checkpoint.Job) error {
		task, err := job.Task(o.task)
		if err != nil {
			return err
		}
		return (&supervisor{p: p, o: o, job: job, task: task}).run(ctx)
	})
	if err == nil || errors.As(err, new(ended)) {
		return err
	}
	return ownCode{err}
}
