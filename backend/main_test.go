package backend_test

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/conformance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	var meter backend.Meter
	for name, decorate := range map[string]func(backend.Store) backend.Store{
		"prefix":  func(s backend.Store) backend.Store { return backend.Prefix(s, "jobs/orders/") },
		"limit":   func(s backend.Store) backend.Store { return backend.Limit(s, 8) },
		"limit-1": func(s backend.Store) backend.Store { return backend.Limit(s, 1) },
		"retry":   func(s backend.Store) backend.Store { return backend.Retry(s, backend.Backoff{}) },
		"meter":   meter.Wrap,
		"traced":  backend.Traced,
		"all": func(s backend.Store) backend.Store {
			s = meter.Wrap(backend.Prefix(s, "jobs/orders/"))
			return backend.Retry(backend.Limit(s, 4), backend.Backoff{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			bucket := mem.NewBucket(time.Now)
			conformance.Run(t, func(_ context.Context, namespace string) (backend.Store, error) {
				return decorate(backend.Prefix(bucket.Open(), namespace+"/")), nil
			})
		})
	}
}

var (
	errFlaky = &backend.Error{Op: "any", Store: "test:", Err: errors.New("connection reset")} // retryable
	errFinal = &backend.Error{Op: "any", Store: "test:", Err: backend.ErrPermission}
)

// A call is a call of a hooked store. A List counts as one call at its beginning and
// one for each key that it is about to yield.
type call struct{ op, key, after string }

// hooked is a Store that first calls before, and fails if that returns an error.
type hooked struct {
	backend.Store
	before func(call) error
}

func newHooked(before func(call) error) *hooked {
	return &hooked{mem.NewBucket(time.Now).Open(), before}
}

func (s *hooked) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	if err := s.before(call{op: "create", key: key}); err != nil {
		return backend.Object{}, err
	}
	return s.Store.Create(ctx, key, data)
}

func (s *hooked) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	if err := s.before(call{op: "put", key: key}); err != nil {
		return backend.Object{}, err
	}
	return s.Store.Put(ctx, key, data)
}

func (s *hooked) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	if err := s.before(call{op: "get", key: key}); err != nil {
		return 0, err
	}
	return s.Store.Get(ctx, key, offset, p)
}

func (s *hooked) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		if err := s.before(call{op: "list", after: after}); err != nil {
			yield(backend.Object{}, err)
			return
		}
		for o, err := range s.Store.List(ctx, prefix, after) {
			if err == nil {
				err = s.before(call{op: "list", key: o.Key, after: after})
			}
			if err != nil {
				yield(backend.Object{}, err)
				return
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (s *hooked) Delete(ctx context.Context, keys ...string) error {
	if err := s.before(call{op: "delete"}); err != nil {
		return err
	}
	return s.Store.Delete(ctx, keys...)
}

// put stores small objects without calling the hook.
func (s *hooked) put(t *testing.T, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if _, err := s.Store.Put(t.Context(), key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
}

func listed(ctx context.Context, s backend.Store) (keys []string, err error) {
	for o, err := range s.List(ctx, "", "") {
		if err != nil {
			return keys, err
		}
		keys = append(keys, o.Key)
	}
	return keys, nil
}

// operations are the methods, called with the key "a".
var operations = map[string]func(ctx context.Context, s backend.Store) error{
	"create": func(ctx context.Context, s backend.Store) error {
		_, err := s.Create(ctx, "a", nil)
		return err
	},
	"put": func(ctx context.Context, s backend.Store) error {
		_, err := s.Put(ctx, "a", nil)
		return err
	},
	"get": func(ctx context.Context, s backend.Store) error {
		_, err := s.Get(ctx, "a", 0, make([]byte, 1))
		return err
	},
	"list": func(ctx context.Context, s backend.Store) error {
		_, err := listed(ctx, s)
		return err
	},
	"delete": func(ctx context.Context, s backend.Store) error { return s.Delete(ctx, "a") },
}
