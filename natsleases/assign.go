// Package natsleases divides the tasks of a job among processes, by leases in a key-value
// store of NATS JetStream. It is an Assign of package runner:
//
//	kv, err := js.KeyValue(ctx, "orders-leases")
//	...
//	err = runner.Run(ctx, runner.RunOptions{
//		Job: job, Dir: dir,
//		Assign: natsleases.Assign(kv, natsleases.Options{Tasks: tasks}),
//		Ended:  natsleases.Fenced(nil),
//	}, open)
//
// Each process gets an equal part of the tasks, plus or minus one. When a process comes or
// goes, tasks move; the others run on. A process that ends in good order gives each of its
// tasks back after its last commit, and another one takes it at once. Those of one that was
// killed are taken when it has given no sign for Options.Expiry. A task that the process whose
// part it is cannot start is taken by another one.
//
// A lease only says who works on a task. What keeps the task's state safe is its history:
// whoever takes a task over fences the process that had it. So a lease that is lost too late,
// or not noticed, by a process that slept or was cut off, costs repeated work and nothing
// else. For the same reason a process that cannot reach NATS goes on with what it has: either
// it gives signs again later, or it finds out that it was fenced.
//
// After a fence a task is taken on again, by this process or another, whoever has fenced it.
// So stop the processes of a job before you delete, roll back or repair one of its tasks.
package natsleases

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
)

// Options say what is divided, and how.
type Options struct {
	// Tasks are all tasks of the job. They are to be the same in each process. While they are
	// not, as in a deploy that adds tasks, some may wait for twice Expiry before anyone takes
	// them.
	Tasks []string

	// Expiry is after how long without a sign of a process its tasks are taken over. It is
	// measured by whoever takes them over, so that no two clocks are compared. A process gives
	// signs four times as often. Shorter means a quicker start after a crash, more requests,
	// and more moves of tasks when a process or NATS is slow. Default 10 s; from 100 ms to 1
	// min.
	Expiry time.Duration

	// Name is what this process is called in the leases, for people who look at them.
	// Default the host's name and the number of the process.
	Name string

	// Logger is told when leases come and go. Default slog.Default().
	Logger *slog.Logger
}

// DefaultExpiry is used where Options.Expiry is 0.
const DefaultExpiry = 10 * time.Second

// Assign returns an Assign that works on this process's part of the tasks. The bucket kv
// belongs to the job alone; a history of 1 is enough, and it must have no TTL. All processes of
// the job use the same bucket and the same Expiry. Connect with nats.MaxReconnects(-1): a
// connection that the client has given up is not made again. Each process leaves the marker of
// a deleted key behind; PurgeDeletes of the bucket removes those of old ones.
//
// Run ends with an error when a task does, unless RunOptions.Ended says otherwise: see
// [Fenced]. A task that has ended by itself is given back, and this process does not take it
// again for the time of Expiry. One that cannot be started is logged and tried again, unless
// the error is a backend.ErrInvalid, which ends Run. An input that comes to its end is not
// foreseen: its task would be started again and again.
func Assign(kv jetstream.KeyValue, opts Options) runner.Assign {
	return func(ctx context.Context, w *runner.Workers) error { return assign(ctx, kv, w, opts) }
}

// Fenced returns a RunOptions.Ended that lets Run go on when a task was fenced: another writer
// has claimed it, as whoever takes its lease over does. Other ends of tasks are next's to decide; if that is nil,
// Run ends with them.
func Fenced(next func(task string, err error) error) func(task string, err error) error {
	return func(task string, err error) error {
		switch {
		case errors.Is(err, checkpoint.ErrFenced):
			return nil
		case next == nil:
			return err
		}
		return next(task, err)
	}
}

// keyValue is what is needed of a [jetstream.KeyValue].
type keyValue interface {
	Bucket() string
	Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error)
	Put(ctx context.Context, key string, value []byte) (uint64, error)
	Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error)
	Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	Delete(ctx context.Context, key string, opts ...jetstream.KVDeleteOpt) error
	WatchAll(ctx context.Context, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error)
}

// workers is what is needed of [runner.Workers].
type workers interface {
	Start(ctx context.Context, task string) error
	Stop(ctx context.Context, task string) error
	Lost(ctx context.Context, task string) error
	Done(task string) <-chan struct{}
	Grace() context.Context
}

func assign(ctx context.Context, kv keyValue, w workers, opts Options) error {
	if err := opts.check(); err != nil {
		return err
	}
	m := &member{
		kv: kv, workers: w, grace: w.Grace(), opts: opts, id: rand.Text(), log: opts.Logger.With("bucket", kv.Bucket()),
		held: make(map[string]*lease), rest: make(map[string]time.Time), ended: make(chan *lease, len(opts.Tasks)),
		view: view{watched: make(chan watched, 1)},
	}
	return m.run(ctx)
}

func (o *Options) check() error {
	o.Expiry = cmp.Or(o.Expiry, DefaultExpiry)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Name == "" {
		host, _ := os.Hostname() // it may have no name
		o.Name = fmt.Sprintf("%s, process %d", cmp.Or(host, "unknown"), os.Getpid())
	}
	o.Tasks = slices.Clone(o.Tasks)
	slices.Sort(o.Tasks)
	switch {
	case len(o.Tasks) == 0:
		return backend.Invalidf("natsleases: there are no tasks to divide: set Options.Tasks")
	case len(slices.Compact(slices.Clone(o.Tasks))) < len(o.Tasks):
		return backend.Invalidf("natsleases: Options.Tasks names a task twice")
	case o.Tasks[0] == "":
		return backend.Invalidf("natsleases: Options.Tasks has a task without a name")
	case o.Expiry < 100*time.Millisecond || o.Expiry > time.Minute:
		return backend.Invalidf("natsleases: Options.Expiry is %v; set 100 ms to 1 min, or 0 for the default", o.Expiry)
	}
	return nil
}
