// Package faultstore makes a Store fail on purpose: before a request is
// applied, after it (the reply is lost), long after the caller gave up (the
// zombie request), or for good, as if the process had died.
package faultstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"

	"github.com/holdfast-io/holdfast/backend"
)

// ErrInjected is what a call fails with unless its Fault says otherwise. It is
// worth trying again, as a network error is.
var ErrInjected = errors.New("injected fault")

// ErrCrashed is what every call fails with after a Crash.
var ErrCrashed = fmt.Errorf("injected crash: %w", backend.ErrClosed)

// Kind says what goes wrong.
type Kind string

// The kinds of fault.
const (
	FailBefore Kind = "fail before" // the request is not applied
	LoseReply  Kind = "lose reply"  // it is applied, and the caller sees an error
	Zombie     Kind = "zombie"      // the caller sees an error, and it is applied at Store.Land
	CrashFirst Kind = "crash before"
	CrashAfter Kind = "crash after" // it is applied; nothing after it is
)

// A Fault is one thing that goes wrong.
type Fault struct {
	Kind Kind
	Verb string // "create", "put", "get", "list", "delete"; "" is any
	Key  string // a part of the key; "" is any
	On   int    // which of the calls that match, from 1; 0 is every one
	Err  error  // instead of ErrInjected
}

func (f Fault) String() string {
	return fmt.Sprintf("%s, call %d of %q on %q", f.Kind, f.On, f.Verb, f.Key)
}

// armed is a Fault and how often it has matched and fired.
type armed struct {
	Fault
	matched, fired int
}

// Store is a backend.Store with faults.
type Store struct {
	store backend.Store

	mu      sync.Mutex
	faults  []*armed
	calls   int
	crashed bool
	zombies []func()
}

var _ backend.Store = (*Store)(nil)

// Wrap returns store with faults.
func Wrap(store backend.Store, faults ...Fault) *Store {
	s := &Store{store: store}
	s.Arm(faults...)
	return s
}

// Arm adds faults, whose counts start now.
func (s *Store) Arm(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		s.faults = append(s.faults, &armed{Fault: f})
	}
}

// Unfired returns the faults that never fired. A test that arms a fault which
// does not fire tests nothing: it should fail.
func (s *Store) Unfired() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var unfired []Fault
	for _, a := range s.faults {
		if a.fired == 0 {
			unfired = append(unfired, a.Fault)
		}
	}
	return unfired
}

// Heal takes all faults away. What a crash has ended stays ended.
func (s *Store) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Calls returns how many calls there have been.
func (s *Store) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Land applies the zombie requests, in the order in which they were made.
func (s *Store) Land() {
	s.mu.Lock()
	zombies := s.zombies
	s.zombies = nil
	s.mu.Unlock()
	for _, apply := range zombies {
		apply()
	}
}

// strike returns the fault that the next call meets, if any.
func (s *Store) strike(verb, key string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.crashed {
		return &Fault{Kind: CrashFirst}
	}
	for _, a := range s.faults {
		if a.Verb != "" && a.Verb != verb || !strings.Contains(key, a.Key) {
			continue
		}
		a.matched++
		if a.On == 0 || a.On == a.matched {
			a.fired++
			s.crashed = a.Kind == CrashFirst || a.Kind == CrashAfter
			return &a.Fault
		}
	}
	return nil
}

// call runs apply under the faults. again applies the same request later.
func (s *Store) call(verb, key string, apply func() error, again func()) error {
	f := s.strike(verb, key)
	if f == nil {
		return apply()
	}
	err := f.Err
	if err == nil {
		err = ErrInjected
	}
	switch f.Kind {
	case CrashFirst:
		err = ErrCrashed
	case CrashAfter:
		_ = apply()
		err = ErrCrashed
	case LoseReply:
		_ = apply()
	case Zombie:
		s.mu.Lock()
		s.zombies = append(s.zombies, again)
		s.mu.Unlock()
	}
	return &backend.Error{Op: verb, Store: "faulty", Key: key, Err: err}
}

// Create implements backend.Store.
func (s *Store) Create(ctx context.Context, key string, data []byte) (o backend.Object, err error) {
	apply := func() (err error) {
		o, err = s.store.Create(ctx, key, data)
		return err
	}
	late := append([]byte(nil), data...)
	again := func() { _, _ = s.store.Create(context.WithoutCancel(ctx), key, late) }
	if err = s.call("create", key, apply, again); err != nil {
		o = backend.Object{}
	}
	return o, err
}

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, key string, data []byte) (o backend.Object, err error) {
	apply := func() (err error) {
		o, err = s.store.Put(ctx, key, data)
		return err
	}
	late := append([]byte(nil), data...)
	again := func() { _, _ = s.store.Put(context.WithoutCancel(ctx), key, late) }
	if err = s.call("put", key, apply, again); err != nil {
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
	if err = s.call("get", key, apply, func() {}); err != nil {
		n = 0
	}
	return n, err
}

// List implements backend.Store. A fault ends it before its first key.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		nothing := func() error { return nil }
		if err := s.call("list", prefix, nothing, func() {}); err != nil {
			yield(backend.Object{}, err)
			return
		}
		s.store.List(ctx, prefix, after)(yield)
	}
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	apply := func() error { return s.store.Delete(ctx, keys...) }
	late := append([]string(nil), keys...)
	again := func() { _ = s.store.Delete(context.WithoutCancel(ctx), late...) }
	return s.call("delete", strings.Join(keys, " "), apply, again)
}

// Close implements backend.Store.
func (s *Store) Close() error { return s.store.Close() }
