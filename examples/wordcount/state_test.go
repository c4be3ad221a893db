package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
)

// A cut holds what was counted before it, and nothing that was counted after
// it; and one can go on from it.
func TestCut(t *testing.T) {
	job, err := checkpoint.Open(t.Context(), memURL(), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = job.Close(context.Background()) }()
	r, err := runner.New(job, runner.Options{Interval: runner.Manual, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]uint64)
	add := func(s *state, n int) {
		for i := range n {
			word := fmt.Sprintf("word%d", i%1000)
			if err := s.add([]byte(word)); err != nil {
				t.Fatal(err)
			}
			want[word]++
		}
	}
	task, s := mustOwn(t, r)
	add(s, 50_500)
	mustCommit(t, task, want)
	committed := maps.Clone(want)
	add(s, 30_000)
	if err := task.Abandon(t.Context()); err != nil {
		t.Fatal(err)
	}

	want = committed
	task, s = mustOwn(t, r)
	add(s, 200)
	mustCommit(t, task, want)
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// ofState is a state that a runner cuts.
type ofState struct{ *state }

func (s ofState) Cut(ctx context.Context) (runner.Cut, error) { return s.cut(ctx) }
func (s ofState) Close() error                                { return s.close() }

func mustOwn(t *testing.T, r *runner.Runner) (task *runner.Task, s *state) {
	t.Helper()
	task, err := r.Own(t.Context(), "words", runner.Spec{
		Dir: filepath.Join(t.TempDir(), "run"),
		Open: func(_ context.Context, restored *runner.Restored) (_ runner.Cutter, err error) {
			s, err = openState(restored.Dir(""), restored.Cuts)
			return ofState{s}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return task, s
}

// mustCommit commits a task, and compares what is restored from the checkpoint.
func mustCommit(t *testing.T, task *runner.Task, want map[string]uint64) {
	t.Helper()
	c, err := task.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "restored")
	if err := c.Restore(t.Context(), dir, checkpoint.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	checkCounts(t, dir, want)
}

func checkCounts(t *testing.T, dir string, want map[string]uint64) {
	t.Helper()
	got := make(map[string]uint64)
	for c, err := range counts(dir) {
		if err != nil {
			t.Fatal(err)
		}
		got[c.word] = c.n
	}
	if !maps.Equal(got, want) {
		t.Errorf("%s: %d words with wrong counts, such as word0 %d times; want %d", dir, len(got), got["word0"], want["word0"])
	}
}
