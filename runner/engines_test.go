package runner

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// A database is an Engine that has one cut at a time.
type database struct {
	value     string
	fail      error // of the next cuts
	failGives error // of removing them
	inUse     int
	cuts      int
	closed    bool
}

func (d *database) Cut(context.Context) (checkpoint.Source, func() error, error) {
	if d.fail != nil {
		return checkpoint.Source{}, nil, d.fail
	}
	if d.inUse > 0 {
		return checkpoint.Source{}, nil, errors.New("the cut before is in use")
	}
	d.inUse++
	d.cuts++
	remove := func() error {
		d.inUse--
		return d.failGives
	}
	return checkpoint.Stream("value", strings.NewReader(d.value)), remove, nil
}

func (d *database) Close() error {
	d.closed = true
	return nil
}

func (d *database) wantFree(t *testing.T) {
	t.Helper()
	if d.inUse != 0 {
		t.Errorf("%d cuts of the database are in use", d.inUse)
	}
}

// Databases are cut together, each into its own store, and what a cut holds is given
// back whatever became of it.
func TestEngines(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var log strings.Builder
		a, b := &database{value: "1"}, &database{value: "2"}
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: Manual, CommitTimeout: time.Minute, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		task, err := r.Own(t.Context(), "a", Spec{Dir: w.dir + "/a", Stores: []string{"x", "y"}, Open: func(context.Context, *Restored) (Cutter, error) {
			return Engines{"x": a, "y": b}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := task.Commit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]string{"x/value": "1", "y/value": "2"} {
			if got := readFile(t, c, path); got != want {
				t.Errorf("%s is %q; expected %q", path, got, want)
			}
		}
		a.wantFree(t)
		b.wantFree(t)

		b.fail = errHost
		if _, err := task.Commit(t.Context()); !errors.Is(err, errHost) {
			t.Error(err)
		}
		if a.cuts != 2 {
			t.Errorf("%d cuts of the first database; expected that it was cut before the second one failed", a.cuts)
		}
		a.wantFree(t)

		b.fail = nil
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", OneIn: 1, Err: errHost})
		if _, err := task.Commit(t.Context()); err == nil {
			t.Error("a commit succeeded in a store that fails")
		}
		store.Disarm()
		a.failGives = errors.New("a file stays")
		if _, err := task.Commit(t.Context()); err != nil {
			t.Error(err) // the commit before has given its cut back, or else this one could not be made
		}
		if !strings.Contains(log.String(), "a file stays") {
			t.Errorf("nobody is told of a cut that could not be removed:\n%s", &log)
		}
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		a.wantFree(t)
		b.wantFree(t)
		if !a.closed || !b.closed {
			t.Error("a database is still open")
		}
	})
}

// What the host does with a cut of its databases, and however its own cut fails, they are
// given back, so that the next cut can be taken.
func TestEnginesAreGivenBack(t *testing.T) {
	for name, test := range map[string]struct {
		cut  func(ctx context.Context, es Engines) (Cut, error)
		want bool // a commit
	}{
		"an error": {func(ctx context.Context, es Engines) (Cut, error) {
			_, err := es.Cut(ctx)
			return Cut{}, errors.Join(err, errHost)
		}, false},
		"a panic": {func(ctx context.Context, es Engines) (Cut, error) {
			_, _ = es.Cut(ctx)
			panic(errHost)
		}, false},
		"a cut of its own": {func(ctx context.Context, es Engines) (Cut, error) {
			cut, err := es.Cut(ctx)
			return Cut{Stores: cut.Stores}, err
		}, true},
		"two cuts": {func(ctx context.Context, es Engines) (Cut, error) {
			a, err := Engines{"a": es["a"]}.Cut(ctx)
			if err != nil {
				return Cut{}, err
			}
			b, err := Engines{"b": es["b"]}.Cut(ctx)
			a.Stores["b"] = b.Stores["b"]
			return a, err
		}, true},
		"a panic of the second database": {func(ctx context.Context, es Engines) (Cut, error) {
			return Engines{"a": es["a"], "b": panics{}}.Cut(ctx)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				a, b := &database{value: "1"}, &database{value: "2"}
				es := Engines{"a": a, "b": b}
				r := w.runner(w.job(), Options{Interval: Manual})
				task, err := r.Own(t.Context(), "a", Spec{Dir: w.dir, Stores: []string{"a", "b"}, Open: func(context.Context, *Restored) (Cutter, error) {
					return cutterFunc(func(ctx context.Context) (Cut, error) { return test.cut(ctx, es) }), nil
				}})
				if err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if _, err := task.Commit(t.Context()); (err == nil) != test.want || err != nil && !errors.Is(err, errHost) {
						t.Error(err)
					}
					a.wantFree(t)
					b.wantFree(t)
				}
			})
		})
	}
}

// panics is a database whose cut panics.
type panics struct{}

func (panics) Cut(context.Context) (checkpoint.Source, func() error, error) { panic(errHost) }

func (panics) Close() error { return nil }

// Without a runner too, databases that were cut before one that cannot be are given back.
func TestEnginesThatCannotBeCut(t *testing.T) {
	a, b := &database{}, &database{fail: errHost}
	if _, err := (Engines{"a": a, "b": b}).Cut(t.Context()); !errors.Is(err, errHost) || a.cuts != 1 {
		t.Errorf("%v, after %d cuts", err, a.cuts)
	}
	a.wantFree(t)
}

// A worker keeps its state in a database, and says how far it has come.
func TestWorkerWithAnEngine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		d := &database{value: "7"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		fail := errHost
		open := func(context.Context, string, *Restored) (Worker, error) {
			return cuttingWorker{d, func() error { err := fail; fail = nil; return err }}, nil
		}
		if err := Run(ctx, w.runOptions("a"), open); err != nil {
			t.Fatal(err)
		}
		if seq, n := w.latest("a"); seq < 5 || n != 7 {
			t.Errorf("checkpoint %d has %d", seq, n)
		}
		d.wantFree(t)
		if !d.closed {
			t.Error("the database is still open")
		}
	})
}

// What Open returns beside an error is not used: it may be Engines of one that is nil.
func TestOpenFailsBesideEngines(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var none *database
		_, err := w.runner(w.job(), Options{}).Own(t.Context(), "a", Spec{
			Dir:  t.TempDir(),
			Open: func(context.Context, *Restored) (Cutter, error) { return Engines{"": none}, io.ErrUnexpectedEOF },
		})
		if !errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, new(*PanicError)) {
			t.Errorf("err = %v", err)
		}
	})
}

// A Worker that forgets its offsets, or its state, loses neither: nothing is committed.
func TestWorkerThatForgets(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  Cut
		says string
	}{
		{"offsets", Cut{Stores: map[string]checkpoint.Source{"": checkpoint.Stream("f", strings.NewReader("1"))}}, "has no Offsets"},
		{"state", Cut{Offsets: map[string]string{}}, "the cut has no state, and the checkpoint before has one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				task, h := w.own(w.runner(w.job(), Options{Interval: Manual}), "a")
				h.mustAdd(task)
				if err := task.Release(within(t, time.Minute)); err != nil {
					t.Fatal(err)
				}
				before, _ := w.latest("a")
				open := func(context.Context, string, *Restored) (Worker, error) { return forgetful{c.cut}, nil }
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if err := Run(ctx, w.runOptions("a"), open); !errors.Is(err, ErrTooManyFailures) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("err = %v, want %q", err, c.says)
				}
				if seq, _ := w.latest("a"); seq != before {
					t.Errorf("checkpoint %d was committed after %d", seq, before)
				}
			})
		})
	}
}

// A forgetful worker waits, and returns always the same cut.
type forgetful struct{ cut Cut }

func (forgetful) Process(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (f forgetful) Cut(context.Context, string) (Cut, error) { return f.cut, nil }
func (forgetful) Close() error                               { return nil }

// A cuttingWorker cuts a database, and may fail after that.
type cuttingWorker struct {
	*database
	after func() error
}

func (c cuttingWorker) Process(ctx context.Context) error { return idle{}.Process(ctx) }

func (c cuttingWorker) Cut(ctx context.Context, _ string) (Cut, error) {
	cut, err := Engines{"": c.database}.Cut(ctx)
	cut.Offsets = map[string]string{"in": c.value}
	cut.Stores[""] = checkpoint.Stream("n", strings.NewReader(c.value))
	return cut, errors.Join(err, c.after())
}

// readFile returns a file of a checkpoint.
func readFile(t *testing.T, c *checkpoint.Checkpoint, path string) string {
	t.Helper()
	fsys, err := c.FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, err := fsys.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
