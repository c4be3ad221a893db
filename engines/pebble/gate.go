package pebble

import (
	"context"
	"errors"
	"sync"

	pebbledb "github.com/cockroachdb/pebble/v2"
)

// A gate hears of Pebble's flushes, and holds back those that began after a cut
// was fixed until the cut is on disk.
//
// Pebble makes one flush after the other, each of all memtables that are full
// when it begins. FlushBegin and FlushEnd are called with the database's lock
// held, FlushEnd in the same critical section in which the tables become part of
// the database. TableCreated and BlobFileCreated are called without any lock, by
// a flush that has written nothing yet: the gate holds it there.
type gate struct {
	changed chan struct{} // has an element if something changed since it was last read

	mu     sync.Mutex
	state  gateState
	opened chan struct{} // closed when the gate opens; made anew when it closes
	last   flush
	err    error // why the cut fails
}

type gateState int

const (
	gateOpen     gateState = iota // no cut is being made
	gateWatching                  // the loop stands still, all flushes go on
	gateClosed                    // flushes that begin now wait
)

// flush is what is known of a flush.
type flush struct {
	n       int // how many began before it
	job     int // Pebble's number for it
	inputs  int // memtables, or one ingestion
	running bool
	late    bool  // it began when the gate was closed
	err     error // how it ended
	ended   chan struct{}
}

var (
	errLate     = errors.New("pebble: a flush was not held back, so that the cut has what was written after it; please report this")
	errIngested = errors.New("pebble: tables were ingested, or a span was excised, while the cut was made; do that before a cut or when it is committed")
)

func newGate() *gate { return &gate{changed: make(chan struct{}, 1)} }

func (g *gate) listener() pebbledb.EventListener {
	return pebbledb.EventListener{
		FlushBegin:      g.flushBegin,
		FlushEnd:        g.flushEnd,
		BackgroundError: g.backgroundError,
		TableCreated:    func(i pebbledb.TableCreateInfo) { g.created(i.JobID, i.Reason) },
		BlobFileCreated: func(i pebbledb.BlobFileCreateInfo) { g.created(i.JobID, i.Reason) },
		TableIngested:   func(pebbledb.TableIngestInfo) { g.ingested() },
	}
}

// waitIdle returns when the flush that runs has ended, or at once if none does.
func (g *gate) waitIdle(ctx context.Context) error {
	last := g.now()
	if !last.running {
		return nil
	}
	select {
	case <-last.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watch begins a cut.
func (g *gate) watch() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state, g.err = gateWatching, nil
	select {
	case <-g.changed: // of an earlier cut
	default:
	}
}

// close has flushes wait that begin from now on.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state, g.opened = gateClosed, make(chan struct{})
}

// open lets all flushes go on.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == gateClosed {
		close(g.opened)
	}
	g.state = gateOpen
}

// waitBegun returns when a flush of everything that was written has begun.
// flushed, from AsyncFlush, is closed when that flush has ended, and memtables
// counts those that wait for a flush or are in one.
func (g *gate) waitBegun(ctx context.Context, flushed <-chan struct{}, memtables func() int) error {
	before := g.now()
	if before.running {
		// Did it begin before AsyncFlush, and so without the newest memtable, or
		// after? Nothing is written meanwhile: it has all of them, or it has not.
		n := memtables()
		if now := g.now(); now.n == before.n && now.running && now.inputs == n {
			return nil
		}
	}
	for {
		if err := g.broken(); err != nil {
			return err
		}
		if g.now().n > before.n {
			return nil
		}
		select {
		case <-flushed:
			return nil
		case <-g.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// waitFlushed returns when that flush has ended.
func (g *gate) waitFlushed(ctx context.Context, flushed <-chan struct{}) error {
	for {
		if err := g.broken(); err != nil {
			return err
		}
		select {
		case <-flushed:
			return nil
		case <-g.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// broken returns why the cut that is being made is not what it should be.
func (g *gate) broken() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

func (g *gate) now() flush {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// change calls f with the lock held, and wakes up who waits.
func (g *gate) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

func (g *gate) flushBegin(info pebbledb.FlushInfo) {
	g.change(func() {
		inputs := info.Input
		if info.Ingest {
			inputs = 1 // Input counts its tables
		}
		g.last = flush{n: g.last.n + 1, job: info.JobID, inputs: inputs, running: true, late: g.state == gateClosed, ended: make(chan struct{})}
	})
}

func (g *gate) flushEnd(info pebbledb.FlushInfo) {
	g.change(func() {
		if g.last.running {
			close(g.last.ended)
		}
		g.last.running, g.last.err = false, info.Err
		if g.last.late && g.state == gateClosed && len(info.Output) > 0 {
			g.fail(errLate)
		}
	})
}

// backgroundError is called after flushEnd when a flush has failed, which Pebble
// then tries again, for ever. A flush that only had nothing to write ends with an
// error as well, but this is not called.
func (g *gate) backgroundError(err error) {
	g.change(func() {
		failed := g.last.err != nil && errors.Is(err, g.last.err)
		if failed && !g.last.late && g.state != gateOpen {
			g.fail(err)
		}
	})
}

// created is called by whoever has begun to write a file.
func (g *gate) created(job int, reason string) {
	g.mu.Lock()
	wait, opened := g.state == gateClosed && reason == "flushing" && g.last.late && g.last.job == job, g.opened
	g.mu.Unlock()
	if reason == "ingesting" {
		g.ingested()
	}
	if wait {
		<-opened
	}
}

// ingested is called before and after tables are ingested.
func (g *gate) ingested() {
	g.change(func() {
		if g.state == gateClosed {
			g.fail(errIngested)
		}
	})
}

// fail has the cut fail. The first reason counts.
func (g *gate) fail(err error) {
	if g.err == nil {
		g.err = err
	}
}
