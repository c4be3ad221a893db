package checkpoint_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		fmt.Fprintln(os.Stderr, runRole(role)) // returns only with an error
		os.Exit(1)
	}
	// A few of each property in every run; -rapid.checks sets more.
	if err := flag.Set("rapid.checks", "10"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// tester is a *testing.T or a *rapid.T.
type tester interface {
	rapid.TB
	Context() context.Context
	Cleanup(func())
}

// newTask returns a task with small segments in an empty job.
func newTask(t tester) *checkpoint.Task {
	t.Helper()
	return openTask(t, mem.NewBucket(time.Now), checkpoint.Options{Memory: 1 << 20})
}

func openTask(t tester, b *mem.Bucket, opts checkpoint.Options) *checkpoint.Task {
	t.Helper()
	job := newJob(t, b.Open(), opts)
	t.Cleanup(func() { _ = job.Close(context.Background()) })
	task, err := job.Task("orders/7")
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func claim(t tester, task *checkpoint.Task) *checkpoint.Owner {
	t.Helper()
	o, err := task.Claim(t.Context(), checkpoint.ClaimOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close(context.Background()) })
	return o
}

func commit(t tester, o *checkpoint.Owner, s checkpoint.Snapshot) *checkpoint.Checkpoint {
	t.Helper()
	c, err := o.Commit(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// at returns a snapshot of offset n, without state.
func at(n int) checkpoint.Snapshot {
	return checkpoint.Snapshot{Offsets: map[string]string{"in": fmt.Sprint(n)}}
}

// with returns a snapshot of offset n with a state of the given size, which begins
// with n and cannot be compressed. More than 16 KiB do not fit into a manifest.
func with(n, bytes int) checkpoint.Snapshot {
	s := at(n)
	start := fmt.Sprintf("%07d,", n)
	rest := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	s.State = checkpoint.Stream("s", io.LimitReader(io.MultiReader(strings.NewReader(start), rest), int64(bytes)))
	return s
}

// A world is a store with a clock and faults, in a bubble in which waiting takes no
// time.
type world struct {
	tester
	bucket  *mem.Bucket
	machine func() time.Time // the clock of the machine on which processes run; nil means the test's
}

// inWorld runs f in a synctest bubble, whose clock is the store's.
func inWorld(t *testing.T, f func(*world)) {
	synctest.Test(t, func(t *testing.T) { run(t, f) })
}

func run(t tester, f func(*world)) {
	f(&world{tester: t, bucket: mem.NewBucket(time.Now)})
}

// process opens the task in a process of its own.
func (w *world) process(faults ...faultstore.Fault) (*checkpoint.Task, *checkpoint.Job, *faultstore.Store) {
	w.Helper()
	return w.open(checkpoint.Options{}, faults...)
}

func (w *world) open(opts checkpoint.Options, faults ...faultstore.Fault) (*checkpoint.Task, *checkpoint.Job, *faultstore.Store) {
	w.Helper()
	store := faultstore.Wrap(w, w.bucket.Open(), faults...)
	opts.Backoff = backend.Backoff{Attempts: 4}
	opts.Logger = slog.New(slog.DiscardHandler)
	job := newJob(w, store, opts)
	if w.machine != nil {
		checkpoint.SetClock(job, w.machine)
	}
	task, err := job.Task("orders/7")
	if err != nil {
		w.Fatal(err)
	}
	return task, job, store
}

func (w *world) owner(faults ...faultstore.Fault) (*checkpoint.Owner, *faultstore.Store) {
	w.Helper()
	return w.ownerWith(checkpoint.Options{}, faults...)
}

func (w *world) ownerWith(opts checkpoint.Options, faults ...faultstore.Fault) (*checkpoint.Owner, *faultstore.Store) {
	w.Helper()
	task, _, store := w.open(opts)
	o := claim(w, task)
	store.Arm(faults...)
	return o, store
}

// history returns the offsets of all checkpoints, the newest first.
func (w *world) history() string {
	w.Helper()
	task, _, _ := w.process()
	list, err := task.List(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	var offsets []string
	for _, c := range list {
		offsets = append(offsets, c.Offsets["in"])
	}
	return strings.Join(offsets, " ")
}

func (w *world) wantHistory(want string) {
	w.Helper()
	if got := w.history(); got != want {
		w.Errorf("history is %q, want %q", got, want)
	}
}

// dir is the task's directory.
const dir = "orders_2f7"

// put stores manifest m and returns its time. m may be one that no writer makes.
func (w *world) put(m *format.Manifest) time.Time {
	w.Helper()
	m.Version = format.Version
	data, err := json.Marshal(m)
	if err != nil {
		w.Fatal(err)
	}
	body := data[:len(data)-1] // without the closing brace
	data = fmt.Appendf(body, ",\"sum\":\"%s\"}\n", format.Sum(body))
	o, err := w.bucket.Open().Create(w.Context(), format.ManifestKey(dir, m.Seq), data)
	if err != nil {
		w.Fatal(err)
	}
	return o.ModTime
}

// manifest reads a manifest.
func (w *world) manifest(seq uint64) *format.Manifest {
	w.Helper()
	p := make([]byte, format.MaxManifest)
	n, err := w.bucket.Open().Get(w.Context(), format.ManifestKey(dir, seq), 0, p)
	if err != nil {
		w.Fatal(err)
	}
	m, err := format.DecodeManifest(p[:n], "orders/7", seq)
	if err != nil {
		w.Fatal(err)
	}
	return m
}

// The kinds of object.
const (
	manifests = "/manifests/"
	segments  = "/segments/"
)

// objects returns the objects of a kind, in the order of their keys.
func (w *world) objects(kind string) []backend.Object {
	w.Helper()
	var list []backend.Object
	for o, err := range w.bucket.Open().List(w.Context(), "", "") {
		if err != nil {
			w.Fatal(err)
		}
		if strings.Contains(o.Key, kind) {
			list = append(list, o)
		}
	}
	return list
}

func (w *world) wantObjects(kind string, want int) {
	w.Helper()
	if list := w.objects(kind); len(list) != want {
		w.Errorf("there are %d objects in %s, want %d: %v", len(list), kind, want, list)
	}
}

// newJob returns the job in a store.
func newJob(t tester, store backend.Store, opts checkpoint.Options) *checkpoint.Job {
	t.Helper()
	job, err := checkpoint.New(store, opts)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// ref parses a Ref as a person writes it.
func ref(s string) checkpoint.Ref {
	r, err := checkpoint.ParseRef(s)
	if err != nil {
		panic(err)
	}
	return r
}

// claimIn claims the world's task in a job.
func claimIn(ctx context.Context, job *checkpoint.Job) (*checkpoint.Owner, error) {
	task, err := job.Task("orders/7")
	if err != nil {
		return nil, err
	}
	return task.Claim(ctx, checkpoint.ClaimOptions{})
}
