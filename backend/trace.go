package backend

import (
	"context"
	"iter"
)

// A Request is one call of a Store, as a trace has it. One that is repeated is one Request
// for each attempt. A List with many pages, or a Delete with many batches, is one Request.
type Request struct {
	Verb    string // create, put, get, list or delete
	Key     string // the prefix of a List; the first key of a Delete
	Attempt int    // 1 for the first
}

// A TraceFunc is told that a request begins. The request is sent with the context that it
// returns. It must call end when the request has ended: keys is how many were named, or
// listed, and bytes how many were sent, or received.
type TraceFunc func(ctx context.Context, r Request) (_ context.Context, end func(keys, bytes int, err error))

type (
	traceKey   struct{}
	attemptKey struct{}
)

// WithTrace returns a context for calls whose requests begin is told of. It is for stores
// that [Traced] has wrapped, as that of a checkpoint.Job is.
func WithTrace(ctx context.Context, begin TraceFunc) context.Context {
	return context.WithValue(ctx, traceKey{}, begin)
}

// WithAttempt returns a context for the attempt number n at a request, of which a trace is
// told. [Retry] does that. Whoever repeats a Create does it, too.
func WithAttempt(ctx context.Context, n int) context.Context {
	if n < 2 || ctx.Value(traceKey{}) == nil {
		return ctx
	}
	return context.WithValue(ctx, attemptKey{}, n)
}

// Traced returns a Store whose requests are told to whom their contexts name
// ([WithTrace]). Without such a context it does nothing. Closing it closes store.
func Traced(store Store) Store { return &traced{store} }

type traced struct{ store Store }

// begin tells that a request begins, if there is anyone to be told.
func begin(ctx context.Context, verb, key string) (_ context.Context, end func(keys, bytes int, err error)) {
	trace, _ := ctx.Value(traceKey{}).(TraceFunc)
	if trace == nil {
		return ctx, func(int, int, error) {}
	}
	attempt, _ := ctx.Value(attemptKey{}).(int)
	return trace(ctx, Request{Verb: verb, Key: key, Attempt: max(attempt, 1)})
}

func (s *traced) Create(ctx context.Context, key string, data []byte) (Object, error) {
	ctx, end := begin(ctx, "create", key)
	o, err := s.store.Create(ctx, key, data)
	end(1, len(data), err)
	return o, err
}

func (s *traced) Put(ctx context.Context, key string, data []byte) (Object, error) {
	ctx, end := begin(ctx, "put", key)
	o, err := s.store.Put(ctx, key, data)
	end(1, len(data), err)
	return o, err
}

func (s *traced) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	ctx, end := begin(ctx, "get", key)
	n, err := s.store.Get(ctx, key, offset, p)
	end(1, n, err)
	return n, err
}

func (s *traced) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		keys := 0
		var failed error
		ctx, end := begin(ctx, "list", prefix)
		defer func() { end(keys, 0, failed) }()
		for o, err := range s.store.List(ctx, prefix, after) {
			if err != nil {
				failed = err
			} else {
				keys++
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

func (s *traced) Delete(ctx context.Context, keys ...string) error {
	first := ""
	if len(keys) > 0 {
		first = keys[0]
	}
	ctx, end := begin(ctx, "delete", first)
	err := s.store.Delete(ctx, keys...)
	end(len(keys), 0, err)
	return err
}

func (s *traced) Close() error { return s.store.Close() }
