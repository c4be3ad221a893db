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

// The causes with which a task's context ends, beside [checkpoint.ErrFenced].
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
	// beginning of its next. Default 60 s; [Manual] for none. Tasks do not commit
	// all at once: each has a place of its own in the interval, given by its
	// name, and up to 5 % of jitter either way.
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

	// CommitTimeout bounds one attempt to commit, from when it begins to wait
	// for its turn. Default 30 min.
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

	// Commits is how many tasks cut and upload at once, and Restores how many
	// stores are restored at once; the others wait for their turn. Default 4
	// each. Uploads need up to Commits x (checkpoint.Options.Uploads+1) x
	// checkpoint.Options.SegmentSize bytes of memory.
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
	for name, d := range map[string]time.Duration{
		"MinPause": o.MinPause, "MaxDelay": o.MaxDelay, "CommitTimeout": o.CommitTimeout, "FailAfter": o.FailAfter,
	} {
		if d < 0 {
			return backend.Invalidf("runner: %s is %v; it must not be negative", name, d)
		}
	}
	switch {
	case o.MaxShare < 0 || o.MaxShare >= 1 || math.IsNaN(o.MaxShare):
		return backend.Invalidf("runner: MaxShare is %v; it must be at least 0 and below 1", o.MaxShare)
	case o.Commits < 0 || o.Restores < 0:
		return backend.Invalidf("runner: Commits is %d and Restores is %d; they must not be negative", o.Commits, o.Restores)
	}
	return checkInterval(o.Interval)
}

func checkInterval(d time.Duration) error {
	if d < 0 && d != Manual {
		return backend.Invalidf("runner: the interval is %v; it must be positive, or runner.Manual", d)
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

	// Stores names the parts that the state has, each a directory of its own.
	// Empty is one part without a name, "". A store that the checkpoint lacks is
	// new: it begins empty.
	Stores []string

	// Dropped names stores that the task no longer has. Without it, a store that
	// is in the checkpoint and not in Stores is an error: it would be lost.
	Dropped []string

	// InOrder restores the stores in the order of Stores. Otherwise the smallest
	// comes first.
	InOrder bool

	// Inputs says where to begin to read the input partitions that it names, when
	// the checkpoint does not say so or is not to be followed. See
	// [Restored.Start].
	Inputs map[string]Input

	// OffsetsAre says what an offset names. Default checkpoint.NextToRead.
	OffsetsAre checkpoint.OffsetMeaning

	// Open opens the task's state. It is called once, when all stores are
	// restored; ctx ends with Own.
	Open func(ctx context.Context, restored *Restored) (Cutter, error)

	// Hooks are called around commits.
	Hooks Hooks

	// Progress, if it is not nil, is told how the restore of a store comes along.
	// It is called from several goroutines.
	Progress func(store string, p checkpoint.Progress)
}

// Hooks are called by the runner, one at a time for each task. Each may be nil.
// A panic in one is an error of it. A hook calls none of the task's methods that
// wait: it holds up what they wait for.
type Hooks struct {
	// Before is called before each cut, while no step runs: to flush what steps
	// have begun. It may advance the position. Its error fails the commit.
	Before func(ctx context.Context, p *Position) error

	// After is called when a checkpoint is durable: the place to acknowledge its
	// offsets upstream. Its error does not undo the commit: it is logged and
	// counted. The next call acknowledges more.
	After func(ctx context.Context, c *checkpoint.Checkpoint) error

	// Failed is called when a commit has failed, with the reason. After an error
	// that is checkpoint.ErrUnknown, After may still be called for it.
	Failed func(ctx context.Context, err error)
}

// A Cutter is the state of a task, as the runner sees it. Its methods are called
// one at a time, and never while a step runs.
type Cutter interface {
	// Cut captures the state as it is now, without reading all of it: a copy by
	// hard links, a snapshot of a database, a frozen map. The loop is paused
	// until it returns. What it returns is read after that, beside the loop.
	Cut(ctx context.Context) (Cut, error)

	// Close closes the state. No cut is in use any more.
	Close() error
}

// A Cut is a state that was captured.
type Cut struct {
	// Stores has a source for each of Spec.Stores, and none other. A task whose
	// Spec names none has one, "", or none at all if it has offsets only.
	Stores map[string]checkpoint.Source

	// Labels are the host's own notes, kept with the checkpoint.
	Labels map[string]string

	// Done, if it is not nil, is called once, when the cut is not needed any more:
	// with the checkpoint that it became, or with the reason why it did not.
	// checkpoint.ErrUnknown is such a reason only when the task has ended before
	// the store said what came of it.
	Done func(c *checkpoint.Checkpoint, err error)

	snapshot *checkpoint.Snapshot // of a Worker, instead of all that
}

func (s *Spec) check(name string) error {
	switch {
	case s.Dir == "":
		return backend.Invalidf("runner: task %q has no directory: set Spec.Dir", name)
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
