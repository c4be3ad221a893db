package backend

import (
	"context"
	"fmt"
	"iter"
)

// Limit returns a Store that has at most n operations of store under way at
// any time; further ones wait for their turn. Closing it closes store.
//
// A List counts while it fetches, not while its consumer works on what it
// yielded, so that the consumer may use the store meanwhile.
func Limit(store Store, n int) Store {
	return &limited{store, make(chan struct{}, n)}
}

type limited struct {
	store Store
	slots chan struct{}
}

func (s *limited) acquire(ctx context.Context, op, key string) error {
	if ctx.Err() == nil {
		select {
		case s.slots <- struct{}{}:
			return nil
		case <-ctx.Done():
		}
	}
	return &Error{Op: op, Key: key, Err: fmt.Errorf("waiting for one of %d request slots: %w", cap(s.slots), ctx.Err())}
}

func (s *limited) release() { <-s.slots }

func (s *limited) Create(ctx context.Context, key string, data []byte) (Object, error) {
	if err := s.acquire(ctx, "create", key); err != nil {
		return Object{}, err
	}
	defer s.release()
	return s.store.Create(ctx, key, data)
}

func (s *limited) Put(ctx context.Context, key string, data []byte) (Object, error) {
	if err := s.acquire(ctx, "put", key); err != nil {
		return Object{}, err
	}
	defer s.release()
	return s.store.Put(ctx, key, data)
}

func (s *limited) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	if err := s.acquire(ctx, "get", key); err != nil {
		return 0, err
	}
	defer s.release()
	return s.store.Get(ctx, key, offset, p)
}

func (s *limited) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		if err := s.acquire(ctx, "list", prefix); err != nil {
			yield(Object{}, err)
			return
		}
		held := true
		defer func() {
			if held {
				s.release()
			}
		}()
		for o, err := range s.store.List(ctx, prefix, after) {
			s.release()
			held = false
			if !yield(o, err) || err != nil {
				return
			}
			if err := s.acquire(ctx, "list", prefix); err != nil {
				yield(Object{}, err)
				return
			}
			held = true
		}
	}
}

func (s *limited) Delete(ctx context.Context, keys ...string) error {
	if err := s.acquire(ctx, "delete", ""); err != nil {
		return err
	}
	defer s.release()
	return s.store.Delete(ctx, keys...)
}

func (s *limited) Close() error { return s.store.Close() }
