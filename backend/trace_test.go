package backend_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/backend"
)

// A trace is told of each request, with its size, and of each attempt.
func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := 2
		inner := newHooked(func(c call) error {
			if c.op == "put" && fails > 0 {
				fails--
				return errFlaky
			}
			if c.op == "list" && c.key == "b" && fails == 0 {
				fails--
				return errFlaky
			}
			return nil
		})
		store := backend.Retry(backend.Traced(inner), backend.Backoff{})
		type spanKey struct{}
		var got []string
		ctx := backend.WithTrace(t.Context(), func(ctx context.Context, r backend.Request) (context.Context, func(int, int, error)) {
			if ctx.Value(spanKey{}) != nil {
				t.Errorf("%+v begins within another request", r)
			}
			return context.WithValue(ctx, spanKey{}, true), func(keys, bytes int, err error) {
				got = append(got, fmt.Sprintf("%s %s, attempt %d: %d keys, %d bytes, failed %t", r.Verb, r.Key, r.Attempt, keys, bytes, err != nil))
			}
		})

		_, _ = store.Put(ctx, "a", make([]byte, 10))
		_, _ = store.Create(backend.WithAttempt(ctx, 3), "b", make([]byte, 5))
		_, _ = store.Get(ctx, "a", 4, make([]byte, 100))
		_, _ = store.Get(ctx, "missing", 0, make([]byte, 100))
		_, _ = listed(ctx, store) // fails after one key, and goes on
		store.List(ctx, "", "")   // never ranged over: no request
		_ = store.Delete(ctx, "a", "b")
		_ = store.Delete(t.Context(), "c") // nobody asked

		want := []string{
			"put a, attempt 1: 1 keys, 10 bytes, failed true",
			"put a, attempt 2: 1 keys, 10 bytes, failed true",
			"put a, attempt 3: 1 keys, 10 bytes, failed false",
			"create b, attempt 3: 1 keys, 5 bytes, failed false",
			"get a, attempt 1: 1 keys, 6 bytes, failed false",
			"get missing, attempt 1: 1 keys, 0 bytes, failed true",
			"list , attempt 1: 1 keys, 0 bytes, failed true",
			"list , attempt 2: 1 keys, 0 bytes, failed false",
			"delete a, attempt 1: 2 keys, 0 bytes, failed false",
		}
		if !slices.Equal(got, want) {
			t.Errorf("told of\n%q\nwant\n%q", got, want)
		}
	})
}
