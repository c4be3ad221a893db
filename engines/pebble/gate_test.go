package pebble

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	pebbledb "github.com/cockroachdb/pebble/v2"
)

func begin(g *gate, job, inputs int) { g.flushBegin(pebbledb.FlushInfo{JobID: job, Input: inputs}) }

func end(g *gate, job int, err error) {
	info := pebbledb.FlushInfo{JobID: job, Err: err}
	if err == nil {
		info.Output = make([]pebbledb.TableInfo, 1)
	}
	g.flushEnd(info)
	if err != nil {
		g.backgroundError(err)
	}
}

func count(n int) func() int { return func() int { return n } }

// done reports in a bubble whether a goroutine that f starts has come to its end.
func start(f func()) (done func() bool) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f()
	}()
	return func() bool {
		synctest.Wait()
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}
}

// The loop may go on when a flush of all memtables has begun, and no earlier.
func TestGateWaitsForTheRightFlush(t *testing.T) {
	for name, test := range map[string]struct {
		before    func(*gate) // what happened when AsyncFlush has returned
		memtables int
		waits     bool
	}{
		"none yet":                {func(*gate) {}, 1, true},
		"one has ended":           {func(g *gate) { begin(g, 1, 1); end(g, 1, nil) }, 1, true},
		"one has all":             {func(g *gate) { begin(g, 1, 2) }, 2, false},
		"one lacks the newest":    {func(g *gate) { begin(g, 1, 1) }, 2, true},
		"an ingestion of 2 files": {func(g *gate) { g.flushBegin(pebbledb.FlushInfo{JobID: 1, Input: 2, Ingest: true}) }, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate()
				g.watch()
				test.before(g)
				var err error
				done := start(func() { err = g.waitBegun(t.Context(), make(chan struct{}), count(test.memtables)) })
				if done() == test.waits {
					t.Errorf("it went on: %t", !test.waits)
				}
				begin(g, 2, 1)
				if !done() || err != nil {
					t.Errorf("it waits for more than the next flush, or fails: %v", err)
				}
			})
		})
	}
}

// Who prepares waits for the flush that is under way, and for no other.
func TestGateWaitsUntilItIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		if done := start(func() { _ = g.waitIdle(t.Context()) }); !done() {
			t.Error("it waits, and nothing runs")
		}
		begin(g, 1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var err error
		ended := start(func() { err = g.waitIdle(ctx) })
		idle := start(func() { _ = g.waitIdle(t.Context()) })
		if idle() || ended() {
			t.Error("it does not wait for the flush that runs")
		}
		if cancel(); !ended() || !errors.Is(err, context.Canceled) {
			t.Errorf("its context has ended: %v", err)
		}
		end(g, 1, nil)
		begin(g, 2, 1)
		if !idle() {
			t.Error("it waits for the next flush")
		}
		end(g, 2, nil)
	})
}

// A flush that began before the gate closed goes on; what begins after, waits.
func TestGateHoldsLateFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		g.watch()
		begin(g, 1, 1)
		g.close()
		for name, done := range map[string]func() bool{
			"a flush of the cut": start(func() { g.created(1, "flushing") }),
			"a compaction":       start(func() { g.created(7, "compacting") }),
		} {
			if !done() {
				t.Errorf("%s is held", name)
			}
		}
		end(g, 1, nil)
		begin(g, 2, 1)
		late := start(func() { g.created(2, "flushing") })
		if late() {
			t.Error("a flush of what was written after the cut goes on")
		}
		g.open()
		if !late() {
			t.Error("it is held after the cut is made")
		}
		end(g, 2, nil)
		if err := g.broken(); err != nil {
			t.Error(err)
		}
	})
}

// If Pebble did not let the gate hold a flush, the cut must not be taken for one.
func TestGateNoticesAFlushThatWasNotHeld(t *testing.T) {
	g := newGate()
	g.watch()
	begin(g, 1, 1)
	g.close()
	end(g, 1, nil)
	begin(g, 2, 1)
	g.flushEnd(pebbledb.FlushInfo{JobID: 2, Err: errors.New("empty table")}) // nothing was written
	if err := g.broken(); err != nil {
		t.Error(err)
	}
	begin(g, 3, 1)
	end(g, 3, nil)
	if err := g.broken(); !errors.Is(err, errLate) {
		t.Errorf("%v; want errLate", err)
	}
	g.open()
	g.watch()
	if err := g.broken(); err != nil {
		t.Errorf("the next cut: %v", err)
	}
}

// Pebble tries a flush again that has failed. A cut does not wait for that.
func TestGateFailsWithItsFlush(t *testing.T) {
	full := errors.New("disk full")
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		g.watch()
		begin(g, 1, 1)
		var err error
		done := start(func() { err = g.waitFlushed(t.Context(), make(chan struct{})) })
		g.backgroundError(errors.New("of a compaction"))
		if done() {
			t.Errorf("a compaction's error is taken for the flush's: %v", err)
		}
		end(g, 1, full)
		if !done() || !errors.Is(err, full) {
			t.Errorf("%v; want its error", err)
		}
	})
}

func TestGateGivesUpWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ErrClosed)
	g := newGate()
	g.watch()
	never := make(chan struct{})
	for name, err := range map[string]error{
		"begun":   g.waitBegun(ctx, never, count(1)),
		"flushed": g.waitFlushed(ctx, never),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v; want the cause", name, err)
		}
	}
}
