package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
	"github.com/holdfast-io/holdfast/checkpoint/internal/segment"
)

// Options configure a Job. The zero value is a good choice.
type Options struct {
	// Retention says which checkpoints stay when a new one is committed.
	Retention Retention

	// SegmentSize bounds the size of a data object, in bytes. Default 16 MiB,
	// at least 64 KiB, at most 64 MiB. (The offsets and labels of a checkpoint,
	// and the list of those retained, are one piece each and may take more.)
	SegmentSize int

	// Uploads is how many segments one save sends at once. Its memory is
	// bounded by (Uploads+1) x SegmentSize. Default 4.
	Uploads int

	// Requests bounds the requests that the job has under way at once.
	// Default 16.
	Requests int

	// CommitTimeout bounds one [Owner.Commit] or [Task.Save], its uploads included. The
	// error of one that took longer wraps context.DeadlineExceeded. Default 0, for no
	// bound but the context's.
	CommitTimeout time.Duration

	// Backoff says how failed requests are tried again.
	Backoff backend.Backoff

	// Logger is told what is worth knowing and is no error: a clean-up that
	// failed, say. Default slog.Default().
	Logger *slog.Logger
}

const minSegment = 64 << 10 // of Options.SegmentSize

func (o *Options) check() error {
	switch {
	case o.SegmentSize != 0 && (o.SegmentSize < minSegment || o.SegmentSize > format.MaxChunk):
		return backend.Invalidf("Options.SegmentSize is %d bytes; it must be from %d to %d", o.SegmentSize, minSegment, format.MaxChunk)
	case o.Uploads < 0:
		return backend.Invalidf("Options.Uploads is %d; it must not be negative", o.Uploads)
	case o.Requests < 0:
		return backend.Invalidf("Options.Requests is %d; it must not be negative", o.Requests)
	case o.CommitTimeout < 0:
		return backend.Invalidf("Options.CommitTimeout is %v; it must not be negative", o.CommitTimeout)
	}
	return o.Retention.check()
}

func (o Options) withDefaults() Options {
	o.SegmentSize = cmp.Or(o.SegmentSize, 16<<20)
	o.Uploads = cmp.Or(o.Uploads, 4)
	o.Requests = cmp.Or(o.Requests, 16)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// A Job is everything under one URL: a set of tasks. It may be used from many
// goroutines at once.
type Job struct {
	store backend.Store // with retries and limits
	meter *backend.Meter
	codec *codec.Codec
	parts *semaphore.Weighted // memory for parts of manifests
	opts  Options
	life  *lifetime

	// clock is the machine's, of which the time that passes in the process can be
	// told too. It is a second opinion: nothing is decided by it alone.
	clock func() time.Time
}

// Open opens the job at a URL, with the drivers that the program imports. It
// sends no request that would fail for a job that does not exist yet.
func Open(ctx context.Context, url string, opts Options) (*Job, error) {
	store, err := backend.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	j, err := New(store, opts)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return j, nil
}

// New returns the job in a store that is open already. The job closes it. An error is
// about opts, and leaves the store open.
func New(store backend.Store, opts Options) (*Job, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	opts = opts.withDefaults()
	j := &Job{
		life: newLifetime(), meter: new(backend.Meter), codec: codec.New(), parts: semaphore.NewWeighted(segment.PartMemory), opts: opts,
		clock: time.Now, //nolint:forbidigo // see there
	}
	store = backend.Limit(j.meter.Wrap(store), opts.Requests)
	j.store = backend.Retry(j.life.wrap(store), opts.Backoff)
	return j, nil
}

// Stats returns what the job has asked of its store since it was opened,
// failed attempts included.
func (j *Job) Stats() backend.Stats { return j.meter.Stats() }

// Close closes the job's owners, as [Owner.Close] does, and then the store. It
// releases no task. A second Close waits as the first does.
//
// It waits for what is under way: for each call that writes to the store or to a
// directory (claims, commits, saves, releases, restores, and what prunes, repairs
// or collects), and for the clean-up that commits have left behind. It interrupts
// none of them: to have it return sooner, end their contexts first. When ctx ends
// before that, clean-ups are cut short, which costs space until the next collection, and
// Close returns an error that wraps the context's. If a call is still under way then,
// the store stays open until another Close has waited for that call.
//
// Calls that come while it waits, or later, fail with an error that wraps
// fs.ErrClosed. So does a call that only reads, and a file of [Checkpoint.FS], at its
// next request. Close must not be called by what a call waits for, which is its
// Progress, its Source, or the writer of its Stream: they would wait for each
// other.
func (j *Job) Close(ctx context.Context) error {
	idle, err := j.life.close(ctx)
	if !idle {
		return err
	}
	return errors.Join(err, j.store.Close())
}

// Task returns the task with a name, which may be any text without control
// characters that is not too long: "Partition 3", "orders/7". It sends no
// request; the task may not exist yet.
func (j *Job) Task(name string) (*Task, error) {
	dir, err := format.EscapeTask(name)
	if err != nil {
		return nil, err
	}
	segments := &segment.Reader{Store: j.store, Codec: j.codec, Parts: j.parts, Task: name, Dir: dir}
	return &Task{
		job: j, segments: segments,
		log: &history.Log{Store: j.store, Segments: segments, Task: name, Dir: dir, Backoff: j.opts.Backoff},
	}, nil
}

// Tasks yields the tasks that exist, in the order of their keys. It sends a
// request for each 1,000 objects, and two at most for each task, whatever their
// histories' lengths. A task whose manifests were lost is one that exists. It ignores
// objects that are not the job's, at the cost of a few requests more for each directory
// that they are in.
func (j *Job) Tasks(ctx context.Context) iter.Seq2[*Task, error] {
	return func(yield func(*Task, error) bool) {
		for after, more := "", true; more; {
			after, more = j.tasksAfter(ctx, after, yield)
		}
	}
}

// readOver is how many keys of one task are read over before another list begins
// behind them: as many as a store sends in answer to one request, so that it costs
// no more.
const readOver = 1000

// tasksAfter yields the tasks in one list, up to one that has many more keys.
// It returns where to go on, and whether to.
func (j *Job) tasksAfter(ctx context.Context, after string, yield func(*Task, error) bool) (next string, more bool) {
	dir, n := "", 0
	for o, err := range j.store.List(ctx, "", after) {
		if err != nil {
			yield(nil, err)
			return "", false
		}
		d, _, ok := strings.Cut(o.Key, "/")
		if !ok {
			continue // it is in no directory
		}
		if d == dir {
			if n++; n == readOver {
				return afterDir(o.Key), true
			}
			continue
		}
		dir, n = d, 0
		task, err := j.taskOf(ctx, o.Key)
		if (task != nil || err != nil) && !yield(task, err) || err != nil {
			return "", false
		}
	}
	return "", false
}

// taskOf returns the task in whose directory first is the first key, or nil if
// there is none.
func (j *Job) taskOf(ctx context.Context, first string) (*Task, error) {
	dir, _, _ := strings.Cut(first, "/")
	name, ok := format.UnescapeTask(dir)
	if !ok {
		return nil, nil
	}
	task, err := j.Task(name)
	if err != nil {
		return nil, err
	}
	// Manifests sort before segments. What sorts before both is not the job's.
	if in, _, ok := format.ParseManifestKey(first); ok && in == dir {
		return task, nil
	}
	seq, _, err := task.log.NewestSeq(ctx)
	if err == nil && seq == 0 {
		switch err = task.wantNew(ctx); {
		case err == nil:
			return nil, nil
		case errors.Is(err, ErrLost), errors.Is(err, ErrGone):
			return task, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return task, nil
}

// afterDir returns a string that sorts after all keys in key's first
// directory and before all others that follow.
func afterDir(key string) string {
	dir, _, _ := strings.Cut(key, "/")
	return dir + "0" // '0' is '/'+1
}
