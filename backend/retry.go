package backend

import (
	"context"
	"iter"
)

// Retry returns a Store that tries the operations of store again when they
// fail with an error that is [Retryable], as often as b says. Closing it
// closes store.
//
// Create is passed through as it is. Whether a Create that failed has
// happened can only be told from what was to be written, which the commit
// protocol knows and this does not.
func Retry(store Store, b Backoff) Store {
	return &retrying{store, b}
}

type retrying struct {
	store   Store
	backoff Backoff
}

func (s *retrying) Create(ctx context.Context, key string, data []byte) (Object, error) {
	return s.store.Create(ctx, key, data)
}

func (s *retrying) Put(ctx context.Context, key string, data []byte) (o Object, err error) {
	err = s.try(ctx, func() error {
		o, err = s.store.Put(ctx, key, data)
		return err
	})
	return o, err
}

func (s *retrying) Get(ctx context.Context, key string, offset int64, p []byte) (n int, err error) {
	err = s.try(ctx, func() error {
		n, err = s.store.Get(ctx, key, offset, p)
		return err
	})
	return n, err
}

func (s *retrying) Delete(ctx context.Context, keys ...string) error {
	return s.try(ctx, func() error { return s.store.Delete(ctx, keys...) })
}

// List goes on after the last key that it has yielded: a listing of many pages
// never begins again because one of them failed. A listing that makes progress
// is given the full number of attempts anew.
func (s *retrying) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		after := after // each range begins where the caller said
		for n := 1; ; n++ {
			var failed error
			for o, err := range s.store.List(ctx, prefix, after) {
				if err != nil {
					failed = err
					break
				}
				if !yield(o, nil) {
					return
				}
				after, n = o.Key, 1
			}
			if failed == nil {
				return
			}
			if err := s.backoff.Again(ctx, n, failed); err != nil {
				yield(Object{}, err)
				return
			}
		}
	}
}

func (s *retrying) Close() error { return s.store.Close() }

// try runs op until it succeeds, fails for good, or has had its attempts.
func (s *retrying) try(ctx context.Context, op func() error) error {
	for n := 1; ; n++ {
		err := op()
		if err == nil {
			return nil
		}
		if err := s.backoff.Again(ctx, n, err); err != nil {
			return err
		}
	}
}
