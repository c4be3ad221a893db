package pebble_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/checkpoint"
	engine "github.com/holdfast-io/holdfast/engines/pebble"
	"github.com/holdfast-io/holdfast/runner"
)

// A tally is a worker that keeps its state in a database: how often each of ten
// numbers was seen.
type tally struct {
	engine *engine.Engine
	next   int // of the input
	end    int
}

func openTally(restored *runner.Restored, end int) (*tally, error) {
	w := &tally{end: end}
	start, err := restored.Start("numbers")
	if err == nil && start.At == runner.Checkpointed {
		w.next, err = strconv.Atoi(start.Offset)
	}
	if err != nil {
		return nil, err
	}
	w.engine, err = engine.Open(restored.Dir(""), &pebble.Options{Logger: quiet{}}, restored.Cuts)
	return w, err
}

// Process counts one number.
func (w *tally) Process(context.Context) error {
	if w.next == w.end {
		return io.EOF
	}
	key := []byte{byte(w.next % 10)}
	n, err := w.get(key)
	if err != nil {
		return err
	}
	w.next++
	return w.engine.DB.Set(key, binary.BigEndian.AppendUint64(nil, n+1), pebble.NoSync)
}

func (w *tally) get(key []byte) (uint64, error) {
	value, closer, err := w.engine.DB.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), closer.Close()
}

// Prepare makes the next cut quicker, beside Process.
func (w *tally) Prepare(ctx context.Context) error { return w.engine.Prepare(ctx) }

// Cut captures the database, and how far the input was counted.
func (w *tally) Cut(ctx context.Context, _ string) (runner.Cut, error) {
	cut, err := runner.Engines{"": w.engine}.Cut(ctx)
	cut.Offsets = map[string]string{"numbers": strconv.Itoa(w.next)}
	return cut, err
}

func (w *tally) Close() error {
	for key := range byte(3) {
		n, err := w.get([]byte{key})
		fmt.Println(key, "was seen", n, "times;", err)
	}
	return w.engine.Close()
}

// A job of the runner that keeps its state in a database is killed (here it only
// ends) and goes on from its checkpoint on another host.
func Example_runner() {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	dir, err := os.MkdirTemp("", "engine-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	job, err := checkpoint.Open(ctx, "mem://runner", checkpoint.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer job.Close(ctx)
	for _, end := range []int{1000, 1500} {
		opts := runner.RunOptions{Job: job, Dir: filepath.Join(dir, fmt.Sprint("host", end)), Tasks: []string{"numbers"}}
		err := runner.Run(ctx, opts, func(_ context.Context, _ string, restored *runner.Restored) (runner.Worker, error) {
			return openTally(restored, end)
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// 0 was seen 100 times; <nil>
	// 1 was seen 100 times; <nil>
	// 2 was seen 100 times; <nil>
	// 0 was seen 150 times; <nil>
	// 1 was seen 150 times; <nil>
	// 2 was seen 150 times; <nil>
}

// A program that owns its loop needs no Cutter of its own.
func TestEngineIsACutter(t *testing.T) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	job, err := checkpoint.Open(t.Context(), "mem://"+t.Name(), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer job.Close(context.Background())
	r, err := runner.New(job, runner.Options{Interval: runner.Manual})
	if err != nil {
		t.Fatal(err)
	}
	for life := range 3 {
		var e *engine.Engine
		task, err := r.Own(t.Context(), "a", runner.Spec{
			Dir: filepath.Join(t.TempDir(), "run"),
			Open: func(_ context.Context, restored *runner.Restored) (_ runner.Cutter, err error) {
				e, err = engine.Open(restored.Dir(""), &pebble.Options{Logger: quiet{}}, restored.Cuts)
				return runner.Engines{"": e}, err
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		for n := range life {
			if _, closer, err := e.DB.Get([]byte{byte(n)}); err != nil {
				t.Errorf("life %d lacks what life %d has written: %v", life, n, err)
			} else if err := closer.Close(); err != nil {
				t.Error(err)
			}
		}
		for range 3 {
			err := task.Step(t.Context(), func(*runner.Position) error {
				return e.DB.Set([]byte{byte(life)}, []byte("x"), pebble.NoSync)
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := task.Commit(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := task.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}
