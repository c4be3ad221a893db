package backend

import (
	"context"
	"errors"
	"iter"
	"strings"
)

// Prefix returns a view of store that adds prefix to every key. prefix is empty, or
// follows the rules for keys and ends with "/". Closing the view closes store. Errors
// name the complete key, and [MaxKeyLen] is the limit for the complete key too.
func Prefix(store Store, prefix string) Store {
	if prefix == "" {
		return store
	}
	return &prefixed{store, prefix}
}

type prefixed struct {
	store  Store
	prefix string
}

func (s *prefixed) Create(ctx context.Context, key string, data []byte) (Object, error) {
	o, err := s.store.Create(ctx, s.prefix+key, data)
	return s.strip(o), err
}

func (s *prefixed) Put(ctx context.Context, key string, data []byte) (Object, error) {
	o, err := s.store.Put(ctx, s.prefix+key, data)
	return s.strip(o), err
}

func (s *prefixed) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	return s.store.Get(ctx, s.prefix+key, offset, p)
}

func (s *prefixed) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	if after != "" {
		after = s.prefix + after
	}
	return func(yield func(Object, error) bool) {
		for o, err := range s.store.List(ctx, s.prefix+prefix, after) {
			if hidden := (*HiddenError)(nil); errors.As(err, &hidden) {
				hidden.Prefix = strings.TrimPrefix(hidden.Prefix, s.prefix)
			}
			if !yield(s.strip(o), err) {
				return
			}
		}
	}
}

func (s *prefixed) Delete(ctx context.Context, keys ...string) error {
	full := make([]string, len(keys))
	for i, key := range keys {
		full[i] = s.prefix + key
	}
	return s.store.Delete(ctx, full...)
}

func (s *prefixed) Close() error { return s.store.Close() }

func (s *prefixed) strip(o Object) Object {
	o.Key = strings.TrimPrefix(o.Key, s.prefix)
	return o
}
