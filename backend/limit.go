package backend

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
)

// Limit returns a Store that has at most n operations of store under way at
// any time; further ones wait for their turn, in the order in which they came.
// Closing it closes store.
//
// When the store asks to slow down ([ErrThrottled]), half as many are allowed,
// at least one. While operations succeed the number grows again, by one for
// each time that as many as are allowed have succeeded, up to n. (TCP finds its
// rate in the same way, and for the same reason: many clients that do so come
// to share what there is.)
//
// A List counts while it fetches, not while its consumer works on what it
// yielded, so that the consumer may use the store meanwhile.
func Limit(store Store, n int) Store {
	n = max(n, 1)
	return &limited{store: store, gate: gate{most: n, allowed: float64(n)}}
}

// A gate lets a number of operations pass at a time.
type gate struct {
	mu      sync.Mutex
	most    int
	allowed float64 // 1 to most
	passed  int     // under way
	waiting []chan struct{}
	cuts    int // how often allowed was halved; who enters takes it as a pass
}

// enter waits for a place, and returns false if ctx ends first. The pass that
// it returns goes to learn.
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
	turn := make(chan struct{})
	g.waiting = append(g.waiting, turn)
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

// reenter takes the place back that a List gave up while its consumer worked.
// It does not wait in the queue: a page of 1,000 keys would wait as often. So
// there may be more under way than are allowed, by one for each List.
func (g *gate) reenter() (pass int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed++
	return g.cuts
}

// giveUp leaves the queue. It returns false when the turn came meanwhile.
func (g *gate) giveUp(turn chan struct{}) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, turn)
	if i < 0 {
		return false
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	return true
}

// leave gives the place back.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed--
	g.admit()
}

// learn adapts the number to how an operation went. Of operations that were
// under way together, and are all told to slow down, only the first counts:
// they say the same thing.
func (g *gate) learn(pass int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err == nil:
		g.allowed = min(float64(g.most), g.allowed+1/g.allowed)
		g.admit()
	case errors.Is(err, ErrThrottled) && pass == g.cuts:
		g.allowed = max(1, g.allowed/2)
		g.cuts++
	}
}

// admit lets in those whose turn it is. The caller holds mu.
func (g *gate) admit() {
	for len(g.waiting) > 0 && g.passed < int(g.allowed) {
		close(g.waiting[0])
		g.waiting = g.waiting[1:]
		g.passed++
	}
}

type limited struct {
	store Store
	gate  gate
}

// do runs call when its turn has come. When ctx ends first it runs call all the
// same: given such a context, the store does nothing but return the error that
// names it.
func (s *limited) do(ctx context.Context, call func() error) error {
	pass, ok := s.gate.enter(ctx)
	if !ok {
		return call()
	}
	defer s.gate.leave() // also when call panics
	err := call()
	s.gate.learn(pass, err)
	return err
}

func (s *limited) Create(ctx context.Context, key string, data []byte) (o Object, err error) {
	err = s.do(ctx, func() error {
		o, err = s.store.Create(ctx, key, data)
		return err
	})
	return o, err
}

func (s *limited) Put(ctx context.Context, key string, data []byte) (o Object, err error) {
	err = s.do(ctx, func() error {
		o, err = s.store.Put(ctx, key, data)
		return err
	})
	return o, err
}

func (s *limited) Get(ctx context.Context, key string, offset int64, p []byte) (n int, err error) {
	err = s.do(ctx, func() error {
		n, err = s.store.Get(ctx, key, offset, p)
		return err
	})
	return n, err
}

func (s *limited) Delete(ctx context.Context, keys ...string) error {
	return s.do(ctx, func() error { return s.store.Delete(ctx, keys...) })
}

func (s *limited) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		pass, held := s.gate.enter(ctx) // if not held, see do
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
				s.gate.learn(pass, err)
			}
			if !yield(o, err) || err != nil {
				return
			}
			pass, held = s.gate.reenter(), true
		}
		s.gate.learn(pass, nil)
	}
}

func (s *limited) Close() error { return s.store.Close() }
