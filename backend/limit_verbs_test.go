package backend_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// TestLimitBoundsEveryVerb starts more operations of each kind than may run at once.
func TestLimitBoundsEveryVerb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 3
		var under, most atomic.Int64
		proceed := make(chan struct{})
		store := newHooked(func(c call) error {
			if c.key != "" && c.op == "list" {
				return nil
			}
			now := under.Add(1)
			defer under.Add(-1)
			for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
			}
			<-proceed
			return nil
		})
		limited := backend.Limit(store, n)
		var wg sync.WaitGroup
		for range 4 {
			for _, do := range operations {
				wg.Go(func() { _ = do(t.Context(), limited) })
			}
		}
		for range 4 * len(operations) {
			synctest.Wait()
			if now := under.Load(); now > n {
				t.Errorf("%d operations under way, want at most %d", now, n)
			}
			proceed <- struct{}{}
		}
		wg.Wait()
		if most.Load() != n {
			t.Errorf("at most %d operations were under way, want %d", most.Load(), n)
		}
	})
}

func TestLimitWaitEndsForEveryVerb(t *testing.T) {
	for op, do := range operations {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				block := make(chan struct{})
				store := newHooked(func(c call) error {
					if c.key == "blocker" {
						<-block
					}
					return nil
				})
				store.put(t, "old")
				limited := backend.Limit(store, 1)
				var wg sync.WaitGroup
				wg.Go(func() { _, _ = limited.Put(t.Context(), "blocker", nil) })
				synctest.Wait()

				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				err := do(ctx, limited)
				var named *backend.Error
				if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &named) || named.Store == "" {
					t.Errorf("error %v, want one that names the store and wraps the deadline", err)
				}

				close(block)
				wg.Wait()
				if err := operations["put"](t.Context(), limited); err != nil { // the limit allows another operation
					t.Error(err)
				}
			})
		})
	}
}
