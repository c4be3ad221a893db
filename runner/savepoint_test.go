package runner

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A savepoint is a checkpoint of what was done before it was asked for, with its
// name, and stays when the retention has removed those around it.
func TestSavepoint(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: time.Second})
		task, h := w.own(r, "a")
		h.mustAdd(task)
		made, err := task.Savepoint(t.Context(), "before the upgrade", 0)
		if err != nil {
			t.Fatal(err)
		}
		if made.Savepoint != "before the upgrade" || made.Offsets["in"] != "1" {
			t.Errorf("savepoint %q of %v", made.Savepoint, made.Offsets)
		}
		for range 30 {
			h.mustAdd(task)
			time.Sleep(time.Second)
		}
		named, err := w.looker.Task("a")
		if err != nil {
			t.Fatal(err)
		}
		all, err := named.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if last := all[len(all)-1]; last.Seq != made.Seq || last.Savepoint != made.Savepoint || len(all) > 15 {
			t.Errorf("of %d checkpoints, the oldest is %d, %q", len(all), last.Seq, last.Savepoint)
		}
	})
}

// Savepoints that are asked for at once are commits of their own; a plain request is
// served by the first.
func TestSavepointsAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		task, h := w.own(r, "a")
		h.cutTakes(time.Second)
		made := make(chan *checkpoint.Checkpoint, 4)
		ask := func(name string, request func() (*checkpoint.Checkpoint, error)) {
			c, err := request()
			if err != nil || name != "" && c.Savepoint != name {
				t.Errorf("savepoint %q: %+v, %v", name, c, err)
			}
			made <- c
		}
		commit := func() (*checkpoint.Checkpoint, error) { return task.Commit(t.Context()) }
		go ask("", commit)
		synctest.Wait() // it is being cut
		go ask("x", func() (*checkpoint.Checkpoint, error) { return task.Savepoint(t.Context(), "x", 0) })
		go ask("y", func() (*checkpoint.Checkpoint, error) { return task.Savepoint(t.Context(), "y", time.Hour) })
		go ask("", commit)
		seqs := make(map[uint64]bool)
		for range 4 {
			seqs[(<-made).Seq] = true
		}
		if cuts, _ := h.counted(); cuts != 3 || len(seqs) != 3 {
			t.Errorf("%d cuts for %d checkpoints; expected 3: one, and one for each savepoint", cuts, len(seqs))
		}
	})
}

// Whoever asks for a name that cannot be had is told so. It does not harm the task.
func TestSavepointWithABadName(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual, MaxFailures: -1})
		task, h := w.own(r, "a")
		if _, err := task.Savepoint(t.Context(), "x", 0); err != nil {
			t.Fatal(err)
		}
		if _, err := task.Savepoint(t.Context(), "x", 0); !errors.Is(err, checkpoint.ErrConflict) {
			t.Errorf("a name that is taken: %v", err)
		}
		cuts, _ := h.counted()
		for name, expires := range map[string]time.Duration{"7": 0, "": 0, "latest": 0, "y": -1} {
			if _, err := task.Savepoint(t.Context(), name, expires); !errors.Is(err, backend.ErrInvalid) {
				t.Errorf("%q, which expires after %v: %v; expected ErrInvalid", name, expires, err)
			}
		}
		if now, _ := h.counted(); now != cuts {
			t.Errorf("%d cuts were taken for savepoints that cannot be", now-cuts)
		}
		h.mustAdd(task)
		if c, err := task.Commit(t.Context()); err != nil || c.Savepoint != "" {
			t.Errorf("%+v, %v", c, err)
		}
		if _, inUse := h.counted(); inUse != 0 {
			t.Errorf("%d cuts are in use", inUse)
		}
	})
}
