package backend

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
)

// Limit returns a Store that runs at most n operations of store at any time. Further
// ones wait: the most urgent are first ([WithUrgency]), and otherwise those that came
// first. Closing it closes store.
//
// It begins with 8 at a time, or n if that is less. While others wait, it tries twice as
// many, and keeps that number if more gets done, up to n: on one connection a service
// sends at a certain rate, and a request waits for its first byte, so a link is full only
// with many of them. More than what fills the link would only make each one slower.
//
// If the store asks to slow down ([ErrThrottled]), or an operation ends by a time limit of
// its driver, the allowed number is halved, down to one. While operations succeed it grows
// again, up to where it was: by one each time as many operations have succeeded as are
// allowed at once. (TCP finds its rate in the same way. Many clients that do so come to
// share the available rate.)
//
// A List counts only while it fetches, not while its consumer handles a key. So the
// consumer may use the store.
func Limit(store Store, n int) Store {
	first := min(max(n, 1), firstAllowed)
	return &limited{store: store, gate: gate{most: max(n, 1), ceiling: first, allowed: float64(first)}}
}

// firstAllowed is how many operations run at a time at first.
const firstAllowed = 8

// An Urgency says which of the operations that wait at a [Limit] come first.
type Urgency int

const (
	Background Urgency = iota - 1 // nobody waits for it: a clean-up
	Normal
	Urgent // nothing can go on without it: a restore
)

type urgencyKey struct{}

// WithUrgency returns a context for operations of that urgency. Without it they are
// Normal.
func WithUrgency(ctx context.Context, u Urgency) context.Context {
	return context.WithValue(ctx, urgencyKey{}, u)
}

func urgencyOf(ctx context.Context) Urgency {
	u, _ := ctx.Value(urgencyKey{}).(Urgency)
	return u
}

// A gate limits how many operations run at the same time.
type gate struct {
	mu      sync.Mutex
	most    int
	ceiling int      // from 1 to most: what it grows to after it was lowered
	climb   climb    // raises ceiling
	allowed float64  // from 1 to ceiling
	passed  int      // the number of operations that are running
	waiting []waiter // in the order in which they will enter
	cuts    int      // how often allowed was halved; enter returns it as the pass
}

type waiter struct {
	urgency Urgency
	turn    chan struct{} // closed when it may enter
}

// enter waits until another operation may begin, and returns false if ctx ends first.
// The returned pass is an argument of learn.
func (g *gate) enter(ctx context.Context) (pass int, ok bool) {
	if ctx.Err() != nil {
		return 0, false
	}
	g.mu.Lock()
	if g.passed < int(g.allowed) && len(g.waiting) == 0 {
		g.passed++
		defer g.mu.Unlock()
		return g.cuts, true
	}
	turn := g.queue(urgencyOf(ctx))
	g.mu.Unlock()

	select {
	case <-turn:
	case <-ctx.Done():
		if g.giveUp(turn) {
			return 0, false
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cuts, true
}

// queue adds a waiter, behind those that are as urgent. The caller holds mu.
func (g *gate) queue(u Urgency) (turn chan struct{}) {
	turn = make(chan struct{})
	at := len(g.waiting)
	for at > 0 && g.waiting[at-1].urgency < u {
		at--
	}
	g.waiting = slices.Insert(g.waiting, at, waiter{u, turn})
	return turn
}

// reenter counts a List again after its consumer has handled a key. It does not wait
// in the queue, because a page of 1,000 keys would have to wait 1,000 times. So each
// List may exceed the limit by one operation.
func (g *gate) reenter() (pass int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed++
	return g.cuts
}

// giveUp leaves the queue. It returns false if its turn has come meanwhile.
func (g *gate) giveUp(turn chan struct{}) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.waiting, func(w waiter) bool { return w.turn == turn })
	if i < 0 {
		return false
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	return true
}

// leave ends an operation.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		g.climb.restart() // what gets done is what is asked for, and not what the link carries
	}
	g.passed--
	g.admit()
}

// learn adapts the allowed number to the result of an operation that moved some bytes. If
// several operations that ran at the same time are told to slow down, only the first one
// lowers the number: they all report the same overload.
func (g *gate) learn(ctx context.Context, pass, bytes int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err == nil:
		g.allowed = min(float64(g.ceiling), g.allowed+1/g.allowed)
		g.rise(bytes)
		g.admit()
	case overloaded(ctx, err) && pass == g.cuts:
		g.allowed = max(1, g.allowed/2)
		g.cuts++
		g.climb.restart()
	}
}

// rise changes how many operations are allowed by what gets done. While fewer are allowed
// than before the store asked to slow down, it changes nothing. The caller holds mu.
func (g *gate) rise(bytes int) {
	if g.allowed < float64(g.ceiling) {
		g.climb.restart()
		return
	}
	g.ceiling = g.climb.next(g.ceiling, g.most, bytes)
	g.allowed = float64(g.ceiling)
}

// overloaded reports whether an operation failed because there are too many, or because it
// got too little of the link. That ctx has ended is no such reason.
func overloaded(ctx context.Context, err error) bool {
	if errors.Is(err, ErrThrottled) {
		return true
	}
	var timeout interface{ Timeout() bool }
	return ctx.Err() == nil && errors.As(err, &timeout) && timeout.Timeout()
}

// admit starts the operations whose turn it is. The caller holds mu.
func (g *gate) admit() {
	for len(g.waiting) > 0 && g.passed < int(g.allowed) {
		close(g.waiting[0].turn)
		g.waiting = g.waiting[1:]
		g.passed++
	}
}

type limited struct {
	store Store
	gate  gate
}

// do runs call when the limit allows it. If ctx ends before that, it still runs call:
// with a context that has ended, the store sends nothing, and returns an error that
// names the operation, the store and the key.
// call returns how many bytes it moved.
func (s *limited) do(ctx context.Context, call func() (int, error)) error {
	pass, ok := s.gate.enter(ctx)
	if !ok {
		_, err := call()
		return err
	}
	defer s.gate.leave() // also if call panics
	n, err := call()
	s.gate.learn(ctx, pass, n, err)
	return err
}

func (s *limited) Create(ctx context.Context, key string, data []byte) (o Object, err error) {
	err = s.do(ctx, func() (int, error) {
		o, err = s.store.Create(ctx, key, data)
		return len(data), err
	})
	return o, err
}

func (s *limited) Put(ctx context.Context, key string, data []byte) (o Object, err error) {
	err = s.do(ctx, func() (int, error) {
		o, err = s.store.Put(ctx, key, data)
		return len(data), err
	})
	return o, err
}

func (s *limited) Get(ctx context.Context, key string, offset int64, p []byte) (n int, err error) {
	err = s.do(ctx, func() (int, error) {
		n, err = s.store.Get(ctx, key, offset, p)
		return n, err
	})
	return n, err
}

func (s *limited) Delete(ctx context.Context, keys ...string) error {
	return s.do(ctx, func() (int, error) { return 0, s.store.Delete(ctx, keys...) })
}

func (s *limited) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		pass, held := s.gate.enter(ctx) // for held == false, see do
		defer func() {
			if held {
				s.gate.leave()
			}
		}()
		for o, err := range s.store.List(ctx, prefix, after) {
			if held {
				s.gate.leave()
				held = false
			}
			if err != nil {
				s.gate.learn(ctx, pass, 0, err)
			}
			if !yield(o, err) || err != nil {
				return
			}
			pass, held = s.gate.reenter(), true
		}
		s.gate.learn(ctx, pass, 0, nil)
	}
}

func (s *limited) Close() error { return s.store.Close() }
