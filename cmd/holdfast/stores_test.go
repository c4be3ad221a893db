package main

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/local"
)

// The stores of the tests: hook://name runs a function of the test around each
// operation on a store in memory. gate:///dir?at=create is a local store in a child
// process, which waits at an operation until its parent lets it go on.
func init() {
	backend.Register("hook", func(_ context.Context, u *url.URL) (backend.Store, error) {
		h, found := hooks.Load(u.Host)
		if !found {
			return nil, backend.Invalidf("no such hook")
		}
		return &hooked{h.(*hook).bucket.Open(), h.(*hook).do}, nil
	})
	backend.Register("gate", func(_ context.Context, u *url.URL) (backend.Store, error) {
		store, err := local.New(u.Path)
		if err != nil {
			return nil, err
		}
		return &hooked{store, gate(u.Query().Get("at"), u.Query().Get("in"), u.Query().Has("deaf"))}, nil
	})
}

var (
	hooks     sync.Map // name -> *hook
	hookNames atomic.Int64
)

// A doFunc performs an operation on a store, and may do something before or after it,
// or leave it out.
type doFunc func(ctx context.Context, op, key string, perform func() error) error

func perform(_ context.Context, _, _ string, perform func() error) error { return perform() }

type hook struct {
	bucket *mem.Bucket
	do     doFunc
}

// newHook returns a store in memory and its URL. The test may change do between
// commands.
func newHook(t *testing.T, now func() time.Time) (*hook, string) {
	t.Helper()
	name := fmt.Sprint("h", hookNames.Add(1))
	h := &hook{mem.NewBucket(now), perform}
	hooks.Store(name, h)
	t.Cleanup(func() { hooks.Delete(name) })
	return h, "hook://" + name
}

type hooked struct {
	store backend.Store
	do    doFunc
}

func (s *hooked) Create(ctx context.Context, key string, data []byte) (o backend.Object, err error) {
	err = s.do(ctx, "create", key, func() (err error) {
		o, err = s.store.Create(ctx, key, data)
		return err
	})
	return o, err
}

func (s *hooked) Put(ctx context.Context, key string, data []byte) (o backend.Object, err error) {
	err = s.do(ctx, "put", key, func() (err error) {
		o, err = s.store.Put(ctx, key, data)
		return err
	})
	return o, err
}

func (s *hooked) Get(ctx context.Context, key string, offset int64, p []byte) (n int, err error) {
	err = s.do(ctx, "get", key, func() (err error) {
		n, err = s.store.Get(ctx, key, offset, p)
		return err
	})
	return n, err
}

func (s *hooked) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		err := s.do(ctx, "list", prefix, func() error {
			for o, err := range s.store.List(ctx, prefix, after) {
				if err != nil || !yield(o, nil) {
					return err
				}
			}
			return nil
		})
		if err != nil {
			yield(backend.Object{}, err)
		}
	}
}

func (s *hooked) Delete(ctx context.Context, keys ...string) error {
	return s.do(ctx, "delete", "", func() error { return s.store.Delete(ctx, keys...) })
}

func (s *hooked) Close() error { return s.store.Close() }

// gate returns a doFunc for a child process. At the first operation of the given kind, on
// a key that contains in, it informs the parent, and waits until the parent lets it go on or the context
// ends. If deaf is set, it ignores the context.
func gate(at, in string, deaf bool) doFunc {
	var once sync.Once
	return func(ctx context.Context, op, key string, perform func() error) error {
		if op == at && strings.Contains(key, in) {
			once.Do(func() {
				if deaf {
					ctx = context.WithoutCancel(ctx)
				}
				pass(ctx)
			})
		}
		if err := ctx.Err(); err != nil {
			return &backend.Error{Op: op, Store: "gate:", Key: key, Err: err}
		}
		return perform()
	}
}

func pass(ctx context.Context) {
	arrived, goOn := os.NewFile(3, "arrived"), os.NewFile(4, "go on")
	if _, err := arrived.Write([]byte{'.'}); err != nil {
		panic(err)
	}
	opened := make(chan struct{})
	go func() {
		_, _ = goOn.Read(make([]byte, 1)) // ends when the parent closes it
		close(opened)
	}()
	select {
	case <-opened:
	case <-ctx.Done():
	}
}
