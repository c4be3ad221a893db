package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
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
)

func TestMain(m *testing.M) {
	if url := os.Getenv(childURL); url != "" {
		fmt.Fprintln(os.Stderr, runChild(url, os.Getenv(childDir)))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// A world is a store, and runners on it. Its clock is that of the bubble that it
// is made in.
type world struct {
	t      *testing.T
	bucket *mem.Bucket
	dir    string // of run directories

	looker *checkpoint.Job // to look at what is in the store
}

// inWorld runs a test in a bubble of its own, with a clock that jumps.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(2 * time.Hour) }) // comes last: what is late may come to its end
		w := &world{t: t, bucket: mem.NewBucket(time.Now), dir: t.TempDir()}
		w.looker = w.job() // before the runners, so that it is closed after them: their hooks may look
		test(t, w)
	})
}

var silent = slog.New(slog.DiscardHandler)

// job opens the world's job through the decorators that wrap gives.
func (w *world) job(wrap ...func(backend.Store) backend.Store) *checkpoint.Job {
	store := w.bucket.Open()
	for _, wrap := range wrap {
		store = wrap(store)
	}
	job, err := checkpoint.New(store, checkpoint.Options{Logger: silent})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := job.Close(context.Background()); err != nil {
			w.t.Error(err)
		}
	})
	return job
}

// runner returns a runner on a job, which is drained in the end.
func (w *world) runner(job *checkpoint.Job, opts Options) *Runner {
	w.t.Helper()
	if opts.Logger == nil {
		opts.Logger = silent
	}
	r, err := New(job, opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // no last commits
		_ = r.Drain(ctx)
		for _, task := range r.all() {
			<-task.Done()
		}
	})
	return r
}

// faulty returns a store that can fail, and what wraps a store into it.
func faulty(s **faultstore.Store) func(backend.Store) backend.Store {
	return func(store backend.Store) backend.Store {
		*s = faultstore.New(store)
		return *s
	}
}

// A host is a Cutter: a number that steps add to, and that is kept in a file.
type host struct {
	t        *testing.T
	restored *Restored

	mu     sync.Mutex
	n      int
	cuts   int            // that were taken
	inUse  int            // that were taken and are not done with
	log    []string       // what was called
	cutFor time.Duration  // how long a cut takes
	stood  *time.Duration // what it says of its pause
	fail   func() error   // called in a cut
	dones  []error        // what Done was told
	closed bool
}

// own makes a runner own a task with a host.
func (w *world) own(r *Runner, name string, edit ...func(*Spec)) (*Task, *host) {
	w.t.Helper()
	task, h, err := w.tryOwn(r, name, edit...)
	if err != nil {
		w.t.Fatal(err)
	}
	return task, h
}

func (w *world) tryOwn(r *Runner, name string, edit ...func(*Spec)) (*Task, *host, error) {
	h := &host{t: w.t}
	spec := Spec{Dir: filepath.Join(w.dir, dirName(name)), Open: h.open}
	for _, edit := range edit {
		edit(&spec)
	}
	task, err := r.Own(w.t.Context(), name, spec)
	return task, h, err
}

func (h *host) open(_ context.Context, restored *Restored) (Cutter, error) {
	h.restored = restored
	data, err := os.ReadFile(filepath.Join(restored.Dir(""), "n"))
	if err == nil {
		h.n, err = strconv.Atoi(string(data))
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return h, err
}

func (h *host) note(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, what)
}

// failWith makes fail what is called in each cut; cutTakes says how long that takes.
func (h *host) failWith(fail func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = fail
}

func (h *host) cutTakes(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cutFor = d
}

// sum returns what steps have added up to.
func (h *host) sum() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n
}

func (h *host) Cut(ctx context.Context) (Cut, error) {
	h.note("cut")
	h.mu.Lock()
	h.cuts++
	dir := filepath.Join(h.restored.Cuts, strconv.Itoa(h.cuts))
	n, fail, cutFor, stood := h.n, h.fail, h.cutFor, h.stood
	h.mu.Unlock()
	if cutFor > 0 {
		time.Sleep(cutFor)
	}
	if fail != nil {
		if err := fail(); err != nil {
			return Cut{}, err
		}
	}
	if err := errors.Join(os.Mkdir(dir, 0o777), os.WriteFile(filepath.Join(dir, "n"), []byte(strconv.Itoa(n)), 0o666)); err != nil {
		return Cut{}, err
	}
	h.mu.Lock()
	h.inUse++
	h.mu.Unlock()
	done := func(c *checkpoint.Checkpoint, err error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.inUse--
		h.dones = append(h.dones, err)
		if (c == nil) == (err == nil) {
			h.t.Errorf("Done is told of checkpoint %v and error %v", c, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			h.t.Error(err)
		}
	}
	return Cut{Stores: map[string]checkpoint.Source{"": checkpoint.Dir(dir)}, Done: done, Pause: stood}, nil
}

func (h *host) Close() error {
	h.note("close")
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		h.t.Error("closed twice")
	}
	if h.inUse > 0 {
		h.t.Errorf("closed with %d cuts in use", h.inUse)
	}
	h.closed = true
	return nil
}

func (h *host) counted() (cuts, inUse int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cuts, h.inUse
}

// add is a step: it adds one, and advances input "in" to the sum.
func (h *host) add(ctx context.Context, task *Task) error {
	return task.Step(ctx, func(p *Position) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.n++
		p.Advance("in", strconv.Itoa(h.n))
		return nil
	})
}

// mustAdd is add where it must not fail.
func (h *host) mustAdd(task *Task) {
	h.t.Helper()
	if err := h.add(h.t.Context(), task); err != nil {
		h.t.Fatal(err)
	}
}

// latest returns what the newest checkpoint of a task holds: its number, offset
// and state, which belong together.
func (w *world) latest(name string) (seq uint64, n int) {
	w.t.Helper()
	task, err := w.looker.Task(name)
	if err != nil {
		w.t.Fatal(err)
	}
	status, err := task.Status(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	c := status.Latest
	if c == nil {
		return 0, 0
	}
	fsys, err := c.FS(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	f, err := fsys.Open("n")
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		w.t.Fatal(err)
	}
	n, err = strconv.Atoi(string(data))
	if err != nil {
		w.t.Fatal(err)
	}
	if got := c.Offsets["in"]; got != string(data) && (got != "" || n != 0) {
		w.t.Errorf("checkpoint %d of %q has offset %q with state %q", c.Seq, name, got, data)
	}
	return c.Seq, n
}

// wantCause fails unless a task's context has ended with a cause.
func wantCause(t *testing.T, task *Task, want error) {
	t.Helper()
	if task.Context().Err() == nil {
		t.Errorf("the task goes on; expected it to end with %q", want)
	} else if got := context.Cause(task.Context()); !errors.Is(got, want) {
		t.Errorf("the task has ended with %q; expected %q", got, want)
	}
}

// within returns a context for the time that a test gives something.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// wantAfter fails unless so much time has gone by since a moment.
func wantAfter(t *testing.T, since time.Time, least, most time.Duration) {
	t.Helper()
	if d := time.Since(since); d < least || d > most {
		t.Errorf("after %v; expected %v to %v", d, least, most)
	}
}

// A tap is a store that tells of calls, before and after they are made.
type tap struct {
	backend.Store
	before, after func(verb, key string)
}

func (s *tap) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	s.tell(s.before, key)
	o, err := s.Store.Create(ctx, key, data)
	s.tell(s.after, key)
	return o, err
}

func (s *tap) tell(f func(verb, key string), key string) {
	if f != nil {
		f("create", key)
	}
}

var errHost = errors.New("the host's own error")
