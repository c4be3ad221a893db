// Package faultstore makes a Store fail on purpose. A call may fail before the request is
// applied, or after it (the reply is lost). The request may be applied long after the
// caller gave up. All calls may fail from some moment on, as if the process had died. And a
// call may be slow, handle half of the data, or change a bit.
package faultstore

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// Store is a backend.Store with faults. It stands for one process's way to the
// store that it wraps.
type Store struct {
	store backend.Store

	mu      sync.Mutex
	faults  []*armed
	healed  []*armed
	calls   int
	crashed bool
	zombies []func()
}

var _ backend.Store = (*Store)(nil)

// New returns store with faults. The caller should check [Store.Unfired] at the end; [Wrap]
// does so by itself.
func New(store backend.Store, faults ...Fault) *Store {
	s := &Store{store: store}
	s.Arm(faults...)
	return s
}

// A TB is what Wrap needs of a testing.TB.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
}

// Wrap is New for a test, which fails if one of the faults that it arms, then or
// later, never fires: it would test nothing.
func Wrap(t TB, store backend.Store, faults ...Fault) *Store {
	s := New(store, faults...)
	t.Cleanup(func() {
		t.Helper()
		for _, f := range s.Unfired() {
			t.Errorf("this fault never fired: %v", f)
		}
	})
	return s
}

// Arm adds faults, whose counts start now. A call that one fault strikes is not
// counted by those that were armed after it: two faults on call 1 strike two
// calls, one after the other.
func (s *Store) Arm(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		s.faults = append(s.faults, arm(f))
	}
}

// Unfired returns the faults that never fired, healed ones too.
func (s *Store) Unfired() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var unfired []Fault
	for _, list := range [][]*armed{s.healed, s.faults} {
		for _, a := range list {
			if a.fired == 0 {
				unfired = append(unfired, a.Fault)
			}
		}
	}
	return unfired
}

// Disarm takes all faults away and forgets them, also those that never fired: it
// is for programs made up at random, which cannot know.
func (s *Store) Disarm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Heal takes all faults away. What a crash has ended stays ended.
func (s *Store) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.healed = append(s.healed, s.faults...)
	s.faults = nil
}

// Calls returns how many calls there have been.
func (s *Store) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Crashed reports whether a fault has ended the process.
func (s *Store) Crashed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crashed
}

// Land applies the late requests, in the order in which they were made, and
// returns how many there were.
func (s *Store) Land() int {
	s.mu.Lock()
	zombies := s.zombies
	s.zombies = nil
	s.mu.Unlock()
	for _, apply := range zombies {
		apply()
	}
	return len(zombies)
}

// A request is one call, and what may become of it.
type request struct {
	ctx       context.Context
	verb, key string
	hasData   bool
	apply     func() error
	late      func() func()      // what applies it after the call has returned; nil if that changes nothing
	damage    func(*Fault) error // apply it by halves or with a changed bit
}

// strike returns the fault that the next call meets, if any.
func (s *Store) strike(r *request) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.crashed {
		return &Fault{Kind: CrashFirst}
	}
	i := slices.IndexFunc(s.faults, func(a *armed) bool { return a.strikes(r) })
	if i < 0 {
		return nil
	}
	f := &s.faults[i].Fault
	s.crashed = f.Kind.crash()
	if (f.Kind == Zombie || f.Kind == CrashZombie) && r.late != nil {
		s.zombies = append(s.zombies, r.late())
	}
	return f
}

// call sends a request under the faults.
func (s *Store) call(r request) error {
	f := s.strike(&r)
	if f == nil {
		return r.apply()
	}
	err := f.Err
	if err == nil {
		err = ErrInjected
	}
	switch f.Kind {
	case LoseReply, CrashAfter:
		_ = r.apply() // nobody will know
	case Truncate, Corrupt:
		return r.damage(f)
	case Delay:
		if ended := wait(r.ctx, f.For); ended != nil {
			err = ended
			break
		}
		if !s.Crashed() {
			return r.apply()
		}
	}
	if f.Kind.crash() || s.Crashed() {
		err = ErrCrashed
	}
	return r.fail(err)
}

func (r *request) fail(err error) error {
	return &backend.Error{Op: r.verb, Store: "faulty", Key: r.key, Err: err}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Create implements backend.Store.
func (s *Store) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	return s.write(ctx, "create", key, data, s.store.Create)
}

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	return s.write(ctx, "put", key, data, s.store.Put)
}

type write = func(ctx context.Context, key string, data []byte) (backend.Object, error)

func (s *Store) write(ctx context.Context, verb, key string, data []byte, send write) (o backend.Object, err error) {
	err = s.call(request{
		ctx: ctx, verb: verb, key: key, hasData: len(data) > 0,
		apply: func() (err error) {
			o, err = send(ctx, key, data)
			return err
		},
		late: func() func() {
			own := append([]byte(nil), data...) // data is the caller's again when it returns
			return func() { _, _ = send(context.WithoutCancel(ctx), key, own) }
		},
		damage: func(f *Fault) (err error) {
			o, err = send(ctx, key, f.damage(data))
			o.Size = int64(len(data)) // the store notices nothing
			return err
		},
	})
	if err != nil {
		o = backend.Object{}
	}
	return o, err
}

// Get implements backend.Store.
func (s *Store) Get(ctx context.Context, key string, offset int64, p []byte) (n int, err error) {
	apply := func() (err error) {
		n, err = s.store.Get(ctx, key, offset, p)
		return err
	}
	err = s.call(request{
		ctx: ctx, verb: "get", key: key, hasData: len(p) > 0,
		apply: apply,
		damage: func(f *Fault) error {
			err := apply()
			n = copy(p, f.damage(p[:n]))
			return err
		},
	})
	if err != nil {
		n = 0
	}
	return n, err
}

// List implements backend.Store. A fault ends it before its first key, unless
// it truncates.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		cut := false
		r := request{ctx: ctx, verb: "list", key: prefix, apply: func() error { return nil }}
		r.damage = func(*Fault) error {
			cut = true
			return nil
		}
		if err := s.call(r); err != nil {
			yield(backend.Object{}, err)
			return
		}
		list := s.store.List(ctx, prefix, after)
		if cut {
			list = half(list, r.fail(ErrInjected))
		}
		list(yield)
	}
}

// half yields the first half of what list does, and then err.
func half(list iter.Seq2[backend.Object, error], err error) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		var all []backend.Object
		for o, err := range list {
			if err != nil {
				break
			}
			all = append(all, o)
		}
		for _, o := range all[:len(all)/2] {
			if !yield(o, nil) {
				return
			}
		}
		yield(backend.Object{}, err)
	}
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	r := request{
		ctx: ctx, verb: "delete", key: strings.Join(keys, " "),
		apply: func() error { return s.store.Delete(ctx, keys...) },
		late: func() func() {
			own := append([]string(nil), keys...)
			return func() { _ = s.store.Delete(context.WithoutCancel(ctx), own...) }
		},
	}
	r.damage = func(*Fault) error {
		_ = s.store.Delete(ctx, keys[:len(keys)/2]...)
		return r.fail(ErrInjected)
	}
	return s.call(r)
}

// Close implements backend.Store.
func (s *Store) Close() error { return s.store.Close() }
