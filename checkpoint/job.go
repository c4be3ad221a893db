package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/semaphore"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/clock"
	"github.com/holdfast-io/holdfast/checkpoint/internal/codec"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
	"github.com/holdfast-io/holdfast/checkpoint/internal/segment"
)

// Options configure a Job. The zero value is a good choice.
type Options struct {
	// Retention says which checkpoints are kept when a new one is committed.
	Retention Retention

	// Memory bounds the memory, in bytes, that the job's saves and restores take for data
	// under way, all of them together. Default 192 MiB, at least 1 MiB. Half of it is for
	// what is sent and received: with more of it, more requests can be under way. The rest
	// is for dividing data into chunks and for compression. The lists of files and chunks
	// that they work with take up to half of the memory for what is sent and received; what
	// they need beyond that comes on top: docs/limits.md says how much.
	//
	// A data object has at most a sixteenth of Memory, and at most 8 MiB. (The offsets and
	// labels of a checkpoint are never divided, nor is the list of retained checkpoints:
	// such an object may be larger.)
	Memory int64

	// Compression says which data is compressed before it is sent. Default CompressionAuto.
	// It changes nothing for what is stored already, nor for readers.
	Compression Compression

	// Requests bounds the requests that the job has under way at once. It begins with 8,
	// and more are used while that makes it faster: see [backend.Limit]. Of those that
	// wait, restores come first, and clean-ups last. Default 64.
	Requests int

	// CommitTimeout bounds one [Owner.Commit] or [Task.Save], its uploads included. The
	// error of one that took longer wraps context.DeadlineExceeded. Default 0, for no
	// bound but the context's.
	CommitTimeout time.Duration

	// WrittenBy is what this program says of itself in what it writes, so that people know
	// whom a task belongs to: at most 256 bytes of text. Nothing depends on it. The default
	// names the program, its version, the host and the process:
	// "orders v1.2.3 on web-7, process 4711".
	WrittenBy string

	// Backoff says how failed requests are tried again.
	Backoff backend.Backoff

	// Logger gets messages about what a person should know but what fails no call: a
	// clean-up that failed, for example. Default slog.Default().
	Logger *slog.Logger
}

// Compression says which data of files is compressed. Whatever it says, a chunk that hardly
// gets smaller is stored as it is.
type Compression string

const (
	// CompressionAuto tries it, and where it saves little, tries it less often.
	CompressionAuto Compression = "auto"
	// CompressionOff is for data that is compressed already, and for where the network and
	// the store cost less than the processor's time. Lists of files are still compressed.
	CompressionOff Compression = "off"
	// CompressionZstd tries it with every chunk. It is for slow networks.
	CompressionZstd Compression = "zstd"
)

func (c Compression) check() error {
	switch c {
	case "", CompressionAuto, CompressionOff, CompressionZstd:
		return nil
	}
	return backend.Invalidf("compression is %q; it must be auto, off or zstd", c)
}

func (o *Options) check() error {
	switch {
	case o.Memory != 0 && o.Memory < minMemory:
		return backend.Invalidf("Options.Memory is %d bytes; it must be at least %d", o.Memory, minMemory)
	case o.Requests < 0:
		return backend.Invalidf("Options.Requests is %d; it must not be negative", o.Requests)
	case o.CommitTimeout < 0:
		return backend.Invalidf("Options.CommitTimeout is %v; it must not be negative", o.CommitTimeout)
	case len(o.WrittenBy) > format.MaxWrittenBy || !utf8.ValidString(o.WrittenBy) || strings.ContainsFunc(o.WrittenBy, unicode.IsControl):
		return backend.Invalidf("Options.WrittenBy has %d bytes; it must be valid UTF-8 of at most %d, without control characters", len(o.WrittenBy), format.MaxWrittenBy)
	case o.Backoff.First < 0 || o.Backoff.Max < 0 || o.Backoff.Attempts < 0:
		return backend.Invalidf("Options.Backoff is %+v; nothing in it may be negative", o.Backoff)
	}
	return cmp.Or(o.Compression.check(), o.Retention.check())
}

func (o Options) withDefaults() Options {
	o.Memory = cmp.Or(o.Memory, defaultMemory)
	o.Requests = cmp.Or(o.Requests, 64)
	o.Compression = cmp.Or(o.Compression, CompressionAuto)
	if o.WrittenBy == "" {
		o.WrittenBy = thisProgram()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// A Job is everything under one URL: a set of tasks. It may be used from many
// goroutines at once.
type Job struct {
	store backend.Store // with retries and limits
	bare  backend.Store // without
	meter *backend.Meter
	codec *codec.Codec
	parts *semaphore.Weighted // memory for parts of manifests
	data  *memory             // for data under way
	opts  Options
	life  *lifetime

	cleanUps *semaphore.Weighted // of owners

	// clock is the machine's clock, including its monotonic reading. It is only a second
	// opinion beside the store's clock: nothing is decided by it alone.
	clock func() time.Time

	sinceBoot func() time.Duration // likewise
}

// Open opens the job at a URL, with the drivers that the program imports. The job need not
// exist yet: the first claim or save creates it.
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

// New returns the job in a store that is open already. [Job.Close] closes the store. If New
// returns an error, an option is invalid, and the store stays open.
func New(store backend.Store, opts Options) (*Job, error) {
	if store == nil {
		return nil, backend.Invalidf("there is no store: open one with backend.Open, or a driver's New")
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	opts = opts.withDefaults()
	j := &Job{
		bare: store, life: newLifetime(), meter: new(backend.Meter), codec: codec.New(), opts: opts,
		parts: semaphore.NewWeighted(segment.PartMemory), data: newMemory(opts.Memory), cleanUps: semaphore.NewWeighted(cleanUps),
		clock:     time.Now, //nolint:forbidigo // see there
		sinceBoot: clock.SinceBoot,
	}
	store = backend.Limit(backend.Traced(j.meter.Wrap(store)), opts.Requests)
	j.store = backend.Retry(j.life.wrap(store), opts.Backoff)
	return j, nil
}

// Stats counts the requests that the job has sent to its store since it was opened,
// including failed ones.
func (j *Job) Stats() backend.Stats { return j.meter.Stats() }

// KeepsVersions reports whether the store has told, in replies to what the job has asked of
// it, that it keeps objects that were deleted, as noncurrent versions. They are paid for
// until a lifecycle rule of the bucket removes them. False may mean that the store does not
// tell. KeepsVersions sends no request.
func (j *Job) KeepsVersions() bool {
	v, ok := j.bare.(backend.Versioned)
	return ok && v.KeepsVersions()
}

// Close closes the job's owners, as [Owner.Close] does, and then the store. It
// releases no task. A second Close waits as the first does.
//
// Close waits for each call that writes to the store or to a directory (claims, commits,
// saves, releases, restores, prunings, repairs and collections), and for clean-ups in the
// background. It interrupts none of them. To have it return sooner, end their contexts
// first. When ctx ends before all is done, Close interrupts the clean-ups and returns an
// error that wraps the context's; what they have not deleted takes space until the next
// collection. If a call is still under way then, the store stays open until another Close
// has waited for that call.
//
// Calls that begin while Close waits, or later, fail with an error that wraps
// fs.ErrClosed. A call that only reads fails so at its next request, and so does a file
// of [Checkpoint.FS].
//
// A Progress function, a Source, and the writer of a Stream must not call Close: the call
// that they belong to waits for them, and Close would wait for that call.
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
		log: &history.Log{Store: j.store, Segments: segments, Task: name, Dir: dir, Backoff: j.opts.Backoff, WrittenBy: j.opts.WrittenBy, SinceBoot: j.sinceBoot},
	}, nil
}

// Tasks yields the tasks that exist, in the order of their keys, and those that were deleted
// and not claimed since, whose Status says so. A task whose manifests
// were lost counts as one that exists, and so does one whose directory cannot be read, which
// does not hide the others: what is asked of it fails. Tasks sends at most two requests for each task,
// however long its history is, and one for each 1,000 objects. It ignores objects that
// are not the job's, which cost a few requests more for each directory that has some.
func (j *Job) Tasks(ctx context.Context) iter.Seq2[*Task, error] {
	return func(yield func(*Task, error) bool) {
		for after, more := "", true; more; {
			after, more = j.tasksAfter(ctx, after, yield)
		}
	}
}

// readOver is how many keys of one task are skipped, one by one, before a new listing is
// begun after the task's last key. It is the number of keys that a store sends in answer
// to one request, so the new listing never costs more than reading on.
const readOver = 1000

// tasksAfter yields the tasks in one listing, up to a task with more than readOver keys.
// It returns after which key to begin the next listing, and whether there is one.
func (j *Job) tasksAfter(ctx context.Context, after string, yield func(*Task, error) bool) (next string, more bool) {
	dir, n := "", 0
	for o, err := range j.store.List(ctx, "", after) {
		if hidden := (*backend.HiddenError)(nil); errors.As(err, &hidden) {
			return j.hiddenTask(hidden, dir, yield)
		}
		if err != nil {
			yield(nil, err)
			return "", false
		}
		d, _, ok := strings.Cut(o.Key, "/")
		if !ok {
			continue // not in a directory, so not the job's
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

// hiddenTask yields the task whose keys are hidden, or some of them, unless it was yielded:
// last is the directory of the one that was yielded last. It returns what tasksAfter does.
func (j *Job) hiddenTask(hidden *backend.HiddenError, last string, yield func(*Task, error) bool) (next string, more bool) {
	dir, _, _ := strings.Cut(hidden.Prefix, "/")
	name, ok := format.UnescapeTask(dir)
	if !ok || dir == last {
		return afterDir(hidden.Prefix), true
	}
	task, err := j.Task(name)
	return afterDir(hidden.Prefix), yield(task, err) && err == nil
}

// taskOf returns the task whose directory contains first, the directory's first key. It
// returns nil if the directory is not a task's.
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
	// Manifests sort before segments. If first is not a manifest, there may be none, or
	// the directory has a foreign object that sorts before them.
	if in, _, ok := format.ParseManifestKey(first); ok && in == dir {
		return task, nil
	}
	seq, _, err := task.log.NewestSeq(ctx)
	if errors.Is(err, fs.ErrPermission) {
		return task, nil // who asks something of it is told
	}
	if err == nil && seq == 0 {
		switch err = task.requireNew(ctx); {
		case err == nil:
			return nil, nil
		case errors.Is(err, ErrLost), errors.Is(err, ErrGone), errors.Is(err, fs.ErrPermission):
			return task, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return task, nil
}

// afterDir returns a string that sorts after all keys in key's first directory, and
// before all keys that follow these.
func afterDir(key string) string {
	dir, _, _ := strings.Cut(key, "/")
	return dir + "0" // '0' is '/'+1
}
