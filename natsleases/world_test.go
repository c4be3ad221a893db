package natsleases

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
	"github.com/holdfast-io/holdfast/runner"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var silent = slog.New(slog.DiscardHandler)

// A world is a job whose tasks some processes divide.
type world struct {
	t      *testing.T
	bucket *mem.Bucket
	dir    string
	tasks  []string

	mu     sync.Mutex
	works  map[string]map[string]bool // by task: the processes that work on it
	starts int                        // of tasks
	fenced int                        // ends of tasks that were fenced

	slow string // a task whose cuts take long
}

// slowCut is how long a cut of that task takes.
const slowCut = 20 * time.Second

func newWorld(t *testing.T, tasks int) *world {
	w := &world{t: t, bucket: mem.NewBucket(time.Now), dir: t.TempDir(), works: make(map[string]map[string]bool)}
	for i := range tasks {
		w.tasks = append(w.tasks, fmt.Sprintf("part %02d", i))
	}
	return w
}

// inWorld runs a test in a bubble of its own, with a clock that jumps.
func inWorld(t *testing.T, tasks int, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(2 * time.Hour) }) // what is late may come to its end
		test(t, newWorld(t, tasks))
	})
}

// A proc is a process of the job.
type proc struct {
	name   string
	store  *faultstore.Store
	client *fakeClient // nil on a real server
	end    context.CancelFunc
	ended  chan error
}

const expiry = 10 * time.Second

// process starts a process. bad is a task that it cannot open, or "".
func (w *world) process(name string, kv keyValue, opts Options, bad string) *proc {
	ctx, cancel := context.WithCancel(context.Background())
	p := &proc{name: name, store: faultstore.New(w.bucket.Open()), end: cancel, ended: make(chan error, 1)}
	p.client, _ = kv.(*fakeClient)
	job, err := checkpoint.New(p.store, checkpoint.Options{Logger: silent})
	if err != nil {
		w.t.Fatal(err)
	}
	opts.Tasks, opts.Name, opts.Logger = w.tasks, name, silent
	run := runner.RunOptions{
		Job: job, Dir: filepath.Join(w.dir, name), Options: runner.Options{Interval: 3 * time.Second, Logger: silent},
		Assign: func(ctx context.Context, workers *runner.Workers) error { return assign(ctx, kv, workers, opts) },
		Ended: Fenced(func(task string, err error) error {
			if bad == "" {
				w.t.Errorf("%s: task %q ended: %v", name, task, err)
			}
			return nil
		}),
	}
	counted := run.Ended
	run.Ended = func(task string, err error) error {
		if errors.Is(err, checkpoint.ErrFenced) {
			w.mu.Lock()
			w.fenced++
			w.mu.Unlock()
		}
		return counted(task, err)
	}
	go func() {
		err := runner.Run(ctx, run, func(_ context.Context, task string, r *runner.Restored) (runner.Worker, error) {
			if task == bad {
				return nil, errors.New("it cannot be opened")
			}
			return w.open(name, task, r)
		})
		p.ended <- errors.Join(err, job.Close(context.Background())) //nolint:contextcheck // ctx has ended
	}()
	return p
}

// join starts a process with a connection of its own.
func (w *world) join(name string, b *fakeBucket) *proc {
	return w.process(name, b.client(), Options{Expiry: expiry}, "")
}

// leave ends processes in good order.
func (w *world) leave(all ...*proc) {
	w.t.Helper()
	for _, p := range all {
		p.end()
	}
	for _, p := range all {
		if err := <-p.ended; err != nil {
			w.t.Errorf("%s: %v", p.name, err)
		}
	}
}

// crash ends a process without a word: no request of it gets through any more.
func (w *world) crash(p *proc) {
	p.store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Err: backend.ErrClosed})
	p.client.setCut(true)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, by := range w.works {
		delete(by, p.name)
	}
	w.works["crashed "+p.name] = map[string]bool{}
}

// A counter is a Worker that counts, once in 100 ms.
type counter struct {
	w             *world
	process, task string
	n             int
}

func (w *world) open(process, task string, r *runner.Restored) (runner.Worker, error) {
	c := &counter{w: w, process: process, task: task}
	if at := r.Checkpoint; at != nil {
		data, err := os.ReadFile(filepath.Join(r.Dir(""), "n"))
		if err != nil {
			return nil, err
		}
		if c.n, err = strconv.Atoi(string(data)); err != nil || at.Offsets["in"] != string(data) {
			w.t.Errorf("task %q: the state is %q, and the offset %q", task, data, at.Offsets["in"])
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.starts++
	if w.works[task] == nil {
		w.works[task] = make(map[string]bool)
	}
	w.works[task][process] = true
	return c, nil
}

func (c *counter) Process(ctx context.Context) error {
	select {
	case <-time.After(100 * time.Millisecond):
		c.n++
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *counter) Cut(_ context.Context, dir string) (runner.Cut, error) {
	n := strconv.Itoa(c.n)
	c.w.mu.Lock()
	slow := c.task == c.w.slow
	c.w.mu.Unlock()
	if slow {
		time.Sleep(slowCut)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return runner.Cut{}, err
	}
	return runner.Cut{
		Stores:  map[string]checkpoint.Source{"": checkpoint.Dir(dir)},
		Offsets: map[string]string{"in": n},
	}, os.WriteFile(filepath.Join(dir, "n"), []byte(n), 0o600)
}

func (c *counter) Close() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	delete(c.w.works[c.task], c.process)
	return nil
}

// parts returns how many tasks each process works on, the most first, and reports whether
// each task is worked on by one process.
func (w *world) parts() (parts []int, once bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	by := make(map[string]int)
	once = true
	for _, task := range w.tasks {
		once = once && len(w.works[task]) == 1
		for process := range w.works[task] {
			by[process]++
		}
	}
	for _, n := range by {
		parts = append(parts, n)
	}
	slices.Sort(parts)
	slices.Reverse(parts)
	return parts, once
}

// wantParts fails unless the tasks are divided like this.
func (w *world) wantParts(when string, want ...int) {
	w.t.Helper()
	if parts, once := w.parts(); !slices.Equal(parts, want) || !once {
		w.t.Errorf("%s: %v, each by one process: %v; want %v", when, parts, once, want)
	}
}

func (w *world) started() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.starts
}
