package backend

import (
	"context"
	"iter"
)

// Retry returns a Store that repeats operations of store that fail with a [Retryable]
// error, as b says. Closing it closes store.
//
// It does not repeat Create. Whether a failed Create took effect can be found out
// only by comparing the stored data with what was to be written. The commit protocol
// can do that, and Retry cannot.
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
	err = s.try(ctx, func(ctx context.Context) error {
		o, err = s.store.Put(ctx, key, data)
		return err
	})
	return o, err
}

func (s *retrying) Get(ctx context.Context, key string, offset int64, p []byte) (n int, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		n, err = s.store.Get(ctx, key, offset, p)
		return err
	})
	return n, err
}

func (s *retrying) Delete(ctx context.Context, keys ...string) error {
	return s.try(ctx, func(ctx context.Context) error { return s.store.Delete(ctx, keys...) })
}

// List continues after the last key that it has yielded: if one page of a long
// listing fails, the listing does not begin again. After each progress it may use the
// full number of attempts again.
func (s *retrying) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		after := after // each range over the sequence begins after the caller's key
		for n := 1; ; n++ {
			var failed error
			for o, err := range s.store.List(WithAttempt(ctx, n), prefix, after) {
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

// try runs op until it succeeds, fails permanently, or has used up its attempts.
func (s *retrying) try(ctx context.Context, op func(ctx context.Context) error) error {
	for n := 1; ; n++ {
		err := op(WithAttempt(ctx, n))
		if err == nil {
			return nil
		}
		if err := s.backoff.Again(ctx, n, err); err != nil {
			return err
		}
	}
}
