package runner

import (
	"cmp"
	"context"
	"slices"
	"sync"
)

// A pool has a number of slots. Those that wait for a slot get it in the order of their
// ranks, the lowest first, and with equal ranks in the order in which they came.
type pool struct {
	mu      sync.Mutex
	free    int
	waiting []*waiter
}

type waiter struct {
	rank int64
	turn chan struct{} // closed when the waiter gets a slot
}

func newPool(size int) *pool { return &pool{free: size} }

// take waits for a slot. The caller must call give when it no longer needs it.
func (p *pool) take(ctx context.Context, rank int64) (give func(), err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	p.mu.Lock()
	if p.free > 0 {
		p.free--
		p.mu.Unlock()
		return sync.OnceFunc(p.give), nil
	}
	w := &waiter{rank, make(chan struct{})}
	i, _ := slices.BinarySearchFunc(p.waiting, rank+1, func(w *waiter, rank int64) int { return cmp.Compare(w.rank, rank) })
	p.waiting = slices.Insert(p.waiting, i, w)
	p.mu.Unlock()

	select {
	case <-w.turn:
		return sync.OnceFunc(p.give), nil
	case <-ctx.Done():
		p.giveUp(w)
		return nil, context.Cause(ctx)
	}
}

func (p *pool) give() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass()
}

// pass gives a slot to the next waiter.
func (p *pool) pass() {
	if len(p.waiting) == 0 {
		p.free++
		return
	}
	close(p.waiting[0].turn)
	p.waiting = slices.Delete(p.waiting, 0, 1)
}

// giveUp leaves the queue. If the waiter has got a slot meanwhile, the next one gets it.
func (p *pool) giveUp(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.waiting, w); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		return
	}
	p.pass()
}
