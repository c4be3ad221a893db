package runner

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// The causes with which a task's context ends, beside [checkpoint.ErrFenced] and
// [checkpoint.ErrLost].
// Test them with errors.Is.
var (
	// ErrTooManyFailures means that commits failed more often, or for longer,
	// than Options tolerate. The last failure is wrapped with it.
	ErrTooManyFailures = errors.New("too many checkpoints failed")

	// ErrDrained means that the runner was drained. It takes on no more tasks.
	ErrDrained = errors.New("the runner was drained")

	// ErrReleased means that Task.Release was called.
	ErrReleased = errors.New("the task was released")

	// ErrAbandoned means that Task.Abandon was called.
	ErrAbandoned = errors.New("the task was abandoned")
)

// ErrHalfDone, wrapped in what a step returns, means that the step has failed with
// the state half changed. The task ends with that error, and commits nothing more:
// the next owner goes on from the last checkpoint.
var ErrHalfDone = errors.New("the state may be half changed")

// ErrDirInUse means that another process, or another task of this one, works in
// the directory of a Spec.
var ErrDirInUse = errors.New("the run directory is in use")

// Manual, as an interval, means that no commit is begun by time.
const Manual time.Duration = -1

// The defaults of Options. All but Commits and Restores are Samza's.
const (
	DefaultInterval      = 60 * time.Second // task.commit.ms
	DefaultMaxDelay      = 60 * time.Second // task.commit.max.delay.ms
	DefaultCommitTimeout = 30 * time.Minute // task.commit.timeout.ms
	DefaultMaxFailures   = 5                // task.commit.skip.commit.exception.max.limit
	DefaultMaxTimeouts   = 2                // task.commit.skip.commit.timeout.max.limit
	DefaultGrace         = 30 * time.Second // task.shutdown.ms
	DefaultCommits       = 4
	DefaultRestores      = 4
)

// Options configure a Runner. The zero value is a good choice.
type Options struct {
	// Interval is the time from the beginning of one commit of a task to the
	// beginning of its next. Default 60 s, at least 1 ms; [Manual] for none. Tasks do
	// not commit all at once: each has a place of its own in the interval, which follows
	// from its name, plus or minus up to 5 % of jitter from one to the next. After a
	// commit that was asked for, the next one is at the first such place that is half an
	// interval away, or more.
	Interval time.Duration

	// MinPause is the least time between the end of one commit of a task and the
	// beginning of the next, requests and retries included. Default none.
	MinPause time.Duration

	// MaxShare, if it is not 0, bounds the share of its time that a task's loop
	// is paused for cuts: the interval is stretched to the last pause divided by
	// MaxShare when that is longer. 0.01 is one part in a hundred; below 1.
	MaxShare float64

	// MaxDelay is how long a commit may be due before steps are held back until
	// it has succeeded. Default 60 s.
	MaxDelay time.Duration

	// CommitTimeout bounds one attempt to commit, including the time that it waits
	// because Commits other tasks are uploading. Default 30 min.
	CommitTimeout time.Duration

	// MaxFailures is how many failures in a row are tolerated; one more ends the
	// task with ErrTooManyFailures. Default 5; negative for none. Time-outs are
	// not counted here.
	MaxFailures int

	// MaxTimeouts is how many time-outs are tolerated between two successes.
	// Default 2; negative for none.
	MaxTimeouts int

	// FailAfter, if it is not 0, ends the task with ErrTooManyFailures once a
	// commit has been due for so long without success.
	FailAfter time.Duration

	// Heartbeat, if it is not 0, is after how long without a commit a task's owner gives
	// another sign of life, for those who wait to take over from it: see [Standby.Wait].
	// Each costs two requests. An owner that commits more often sends none. By its next
	// heartbeat an owner also learns that it was fenced. Default none.
	Heartbeat time.Duration

	// Commits is how many tasks cut and upload at once, and Restores how many
	// stores are restored at once; the others wait. So a process makes at most Commits commits
	// in the time of one round trip to the store. Default 4
	// each. What is under way of all of them takes checkpoint.Options.Memory at most.
	Commits, Restores int

	// MeterProvider and TracerProvider get the metrics and spans that
	// docs/runner.md lists. Default none; otel.GetMeterProvider() and
	// otel.GetTracerProvider() are the program's own.
	MeterProvider  metric.MeterProvider
	TracerProvider trace.TracerProvider

	// Logger is told what happens to tasks. Default slog.Default().
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if err := o.check(); err != nil {
		return o, err
	}
	defaultTo(&o.Interval, DefaultInterval)
	defaultTo(&o.MaxDelay, DefaultMaxDelay)
	defaultTo(&o.CommitTimeout, DefaultCommitTimeout)
	defaultTo(&o.MaxFailures, DefaultMaxFailures)
	defaultTo(&o.MaxTimeouts, DefaultMaxTimeouts)
	defaultTo(&o.Commits, DefaultCommits)
	defaultTo(&o.Restores, DefaultRestores)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o, nil
}

func defaultTo[T comparable](v *T, d T) {
	if *v == *new(T) {
		*v = d
	}
}

func (o *Options) check() error {
	for _, d := range []struct {
		name string
		is   time.Duration
	}{{"MinPause", o.MinPause}, {"MaxDelay", o.MaxDelay}, {"CommitTimeout", o.CommitTimeout}, {"FailAfter", o.FailAfter}, {"Heartbeat", o.Heartbeat}} {
		if d.is < 0 {
			return backend.Invalidf("runner: Options.%s is %v; set a positive time, or 0 for the default", d.name, d.is)
		}
	}
	switch {
	case o.MaxShare < 0 || o.MaxShare >= 1 || math.IsNaN(o.MaxShare):
		return backend.Invalidf("runner: Options.MaxShare is %v; set a part of 1, as 0.01, or 0 for no bound", o.MaxShare)
	case o.Commits < 0:
		return backend.Invalidf("runner: Options.Commits is %d; set a positive number, or 0 for the default", o.Commits)
	case o.Restores < 0:
		return backend.Invalidf("runner: Options.Restores is %d; set a positive number, or 0 for the default", o.Restores)
	}
	return checkInterval(o.Interval)
}

func checkInterval(d time.Duration) error {
	if d < 0 && d != Manual {
		return backend.Invalidf("runner: Options.Interval is %v; set a positive time, 0 for the default, or runner.Manual for none", d)
	}
	if d > 0 && d < time.Millisecond {
		return backend.Invalidf("runner: Options.Interval is %v; set a millisecond or more (a number without a unit is nanoseconds)", d)
	}
	return nil
}

// A Spec says what a task is made of.
type Spec struct {
	// Dir is the task's run directory: its local state, and what it is cut into.
	// The runner makes it, locks it for as long as it owns the task, and removes
	// what a killed process has left in it. State of an earlier run is used
	// again: what it has of the checkpoint is not fetched.
	Dir string

	// State, if it is not nil, is where the state is in place of a directory in Dir.
	State *StateDir

	// Stores names the parts that the state has, each a directory of its own.
	// Empty is one part without a name, "". A store that the checkpoint lacks is
	// new: it begins empty.
	Stores []string

	// Dropped names stores that the task no longer has. Without it, a store that
	// is in the checkpoint and not in Stores is an error: it would be lost. A task
	// that is to have no named stores any more drops all.
	Dropped []string

	// InOrder restores the stores in the order of Stores. Otherwise the smallest
	// comes first.
	InOrder bool

	// Inputs has a rule for each partition that it names: where to begin if the checkpoint
	// has no offset for it, or if the rule ignores that offset. See [Restored.Start].
	Inputs map[string]Input

	// OffsetsAre says what an offset names. Default checkpoint.NextToRead.
	OffsetsAre checkpoint.OffsetMeaning

	// IfEpoch, if it is not nil, is checkpoint.ClaimOptions.IfEpoch: the task is claimed only
	// if nobody has claimed it since it was looked at. Otherwise Own returns
	// checkpoint.ErrConflict, and fences nobody.
	IfEpoch *uint64

	// Claimed, if it is not nil, is called with the epoch once the task is claimed, before
	// anything is restored: to write it down. After its error the task is released again,
	// and Own fails.
	Claimed func(epoch uint64) error

	// Open opens the task's state. It is called once, when all stores are
	// restored; ctx ends with Own.
	Open func(ctx context.Context, restored *Restored) (Cutter, error)

	// Hooks are called around commits.
	Hooks Hooks

	// Progress, if it is not nil, is told how the restore of a store comes along.
	// It is called from several goroutines.
	Progress func(store string, p checkpoint.Progress)
}

// A StateDir is a directory outside the run directory in which a task's state is: one that
// a program or a person knows by name. It is made when it is absent.
//
// Only a directory that is known as the state of this task, from an earlier run in the same
// run directory, is replaced by what a checkpoint has. Anything else that is not empty is
// refused with [ErrNotState], before the task is claimed. If the task has no checkpoint, it
// goes on from what this task has left there.
type StateDir struct {
	// Path is the directory. It is on the same file system as the run directory, is no
	// mount point, and no process works in it.
	Path string

	// Job tells the job from others, as its URL does: a directory that was the state of a
	// task of another job is refused.
	Job string

	// Adopt accepts what is there, if the task has no checkpoint, as what it begins with.
	Adopt bool

	// Aside, if it is not empty, is where what this task has left there is moved to, if the task
	// has no checkpoint: its process was killed, say, and may have left half a change. Then the
	// task begins with an empty directory. Aside is on the same file system. If something is
	// there already, it stays, and Aside-2 is taken, and so on to Aside-10; then the task is
	// refused. [Restored.Aside] says which it was. Adopt comes before it.
	Aside string
}

// Hooks are called by the runner, one at a time for each task. Each may be nil.
// A panic counts as the hook's error. A hook must not call Commit, Release or another
// method that waits: the method would wait for the hook.
type Hooks struct {
	// Before is called before each cut, while no step runs: to flush what steps
	// have begun. It may advance the position. Its error fails the commit.
	Before func(ctx context.Context, p *Position) error

	// Complete is called when a checkpoint is durable whose cut has prepared something: it
	// does that outside. It is called again if it fails, before the next cut, and by whoever
	// goes on from that checkpoint, before Open. So it must come to the same result however
	// often it is called, also when another process does so at the same time, or when later
	// ones were completed before. It is never called for a checkpoint that was not committed.
	Complete func(ctx context.Context, c *checkpoint.Checkpoint, prepared string) error

	// After is called when a checkpoint is durable: the place to acknowledge its
	// offsets upstream. Its error does not undo the commit: it is logged and
	// counted. The next call acknowledges more. ctx ends after Options.CommitTimeout,
	// or when FailAfter is over. The next commit waits for the hook, and is due all the
	// same: steps are held back when that takes longer than MaxDelay.
	After func(ctx context.Context, c *checkpoint.Checkpoint) error

	// Failed is called when a commit has failed, with the reason. After an error
	// that is checkpoint.ErrUnknown, After may still be called for it. ctx ends as that
	// of After.
	Failed func(ctx context.Context, err error)
}

// A Cutter is the state of a task, as the runner sees it. Cut and Close are called
// one at a time, and never while a step runs. It may be a [Preparer] as well.
type Cutter interface {
	// Cut captures the state as it is now, without reading all of it: a copy by
	// hard links, a snapshot of a database, a frozen map. The loop is paused
	// until it returns. What it returns is read after that, beside the loop.
	Cut(ctx context.Context) (Cut, error)

	// Close closes the state. No cut is in use any more.
	Close() error
}

// A Preparer is a [Cutter], an [Engine] or a [Worker] that can make its next cut quicker, beside the
// loop: a database waits for what it is writing, so that the cut need not wait for it.
type Preparer interface {
	// Prepare is called before the loop is paused for a cut, and perhaps more than
	// once; steps run beside it. It should take no longer than a second: the commit
	// waits for it. Its error fails the commit.
	Prepare(ctx context.Context) error
}

// A Cut is a state that was captured.
type Cut struct {
	// Stores has a source for each of Spec.Stores, and none other. A task whose
	// Spec names none has one, "", or none at all if it has offsets only.
	Stores map[string]checkpoint.Source

	// Labels are the host's own notes, kept with the checkpoint. The runner adds some that
	// begin with "runner.".
	Labels map[string]string

	// Offsets, if it is not nil, is how far the input was processed, in place of
	// what steps have advanced. A [Worker], which has no steps, sets it.
	Offsets map[string]string

	// Prepared says what is to be done outside once this cut is committed, and not before:
	// Hooks.Complete is given it. It travels in the checkpoint, as text of at most 16 KiB:
	// the names of files, or ids of messages. What is larger is part of the state.
	Prepared string

	// Done, if it is not nil, is called once, when the cut is not needed any more:
	// with the checkpoint that it became, or with the reason why it did not.
	// checkpoint.ErrUnknown is such a reason only when the task has ended before
	// the store said what came of it.
	Done func(c *checkpoint.Checkpoint, err error)

	// Pause, if it is not nil, is for how long the program really stood still, where that is
	// not for the whole call of Cut: much of it is copying beside a program that runs, say.
	// Options.MaxShare goes by it.
	Pause *time.Duration

	remove func() error // called after Done; nil for none
}

func (s *Spec) check(name string) error {
	switch {
	case s.Dir == "":
		return backend.Invalidf("runner: task %q has no directory: set Spec.Dir", name)
	case s.State != nil && (s.State.Path == "" || s.State.Job == ""):
		return backend.Invalidf("runner: task %q: set both Path and Job of Spec.State", name)
	case s.State != nil && len(s.Stores)+len(s.Dropped) > 0:
		return backend.Invalidf("runner: task %q has Spec.State, which is one directory, and named stores; use one of them", name)
	case s.Open == nil:
		return backend.Invalidf("runner: task %q has nothing that opens its state: set Spec.Open", name)
	}
	for i, store := range slices.Concat(s.Stores, s.Dropped) {
		switch {
		case !isStoreName(store):
			return backend.Invalidf("runner: task %q: %q is no name of a store; use one that can be a directory's, without a dot at its beginning", name, store)
		case slices.Contains(slices.Concat(s.Stores, s.Dropped)[:i], store):
			return backend.Invalidf("runner: task %q: store %q is named twice", name, store)
		}
	}
	for partition, input := range s.Inputs {
		if err := input.check(); err != nil {
			return backend.Invalidf("runner: task %q: input %q: %v", name, partition, err)
		}
	}
	return nil
}

func isStoreName(name string) bool {
	return name != "" && name[0] != '.' && !strings.ContainsAny(name, `/\`) && filepath.IsLocal(name)
}
