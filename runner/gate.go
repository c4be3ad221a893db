package runner

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A gate lets steps run, many at a time, or a cut, alone.
type gate struct {
	base context.Context // of the contexts that steps get

	mu       sync.Mutex
	running  int           // steps
	paused   bool          // a cut waits for the steps to end, or is being taken
	holdFrom time.Time     // from when on steps are held back; zero for never
	shut     error         // why no step may begin any more
	changed  chan struct{} // closed, and replaced, when a waiter may go on

	steps    context.Context // ends when the steps that run are waited for
	endSteps context.CancelCauseFunc
}

// errCutWaits is the cause with which the context of a step ends when a cut waits
// for it.
var errCutWaits = errors.New("a checkpoint waits for the step to end")

func newGate(base context.Context) *gate {
	g := &gate{base: base, changed: make(chan struct{})}
	g.steps, g.endSteps = context.WithCancelCause(base)
	return g
}

// enter waits until a step may begin. It returns the step's context, and how long
// the step was held back because a commit was overdue. Whoever entered leaves.
func (g *gate) enter(ctx context.Context) (step context.Context, held time.Duration, err error) {
	for {
		if ctx.Err() != nil {
			return nil, held, context.Cause(ctx)
		}
		step, changed, overdue, err := g.tryEnter()
		if step != nil || err != nil {
			return step, held, err
		}
		began := time.Now()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		if overdue {
			held += time.Since(began)
		}
	}
}

// tryEnter returns the context of a step that may begin, or what to wait for.
func (g *gate) tryEnter() (step context.Context, changed <-chan struct{}, overdue bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	overdue = !g.holdFrom.IsZero() && !time.Now().Before(g.holdFrom)
	switch {
	case g.shut != nil:
		return nil, nil, false, g.shut
	case g.paused || overdue:
		return nil, g.changed, overdue, nil
	}
	g.running++
	return g.steps, nil, false, nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	g.wake()
}

func (g *gate) wake() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// pause keeps new steps from beginning, and waits for those that run. After an
// error they may go on.
func (g *gate) pause(ctx context.Context) error {
	g.mu.Lock()
	g.paused = true
	g.endSteps(errCutWaits)
	for g.running > 0 {
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			g.resume()
			return context.Cause(ctx)
		}
		g.mu.Lock()
	}
	g.mu.Unlock()
	return nil
}

// resume lets steps begin again.
func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = false
	g.steps, g.endSteps = context.WithCancelCause(g.base)
	g.wake()
}

// hold sets from when on steps are held back; zero is never.
func (g *gate) hold(from time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !from.Equal(g.holdFrom) {
		g.holdFrom = from
		g.wake()
	}
}

// close keeps steps from beginning for good. Those that run may end.
func (g *gate) close(why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = why
	g.wake()
}
