package backend_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
)

// A slow store takes a second for each operation, and counts how many run at the same
// time. If it has a capacity, it throttles operations above it.
type slow struct {
	backend.Store
	capacity int

	mu              sync.Mutex
	now, most, done int
}

func newSlow(capacity int) *slow {
	return &slow{Store: mem.NewBucket(time.Now).Open(), capacity: capacity}
}

func (s *slow) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	if ctx.Err() != nil {
		return s.Store.Put(ctx, key, data)
	}
	s.mu.Lock()
	s.now++
	s.most = max(s.most, s.now)
	full := s.capacity > 0 && s.now > s.capacity
	s.mu.Unlock()
	time.Sleep(time.Second)
	s.mu.Lock()
	s.now--
	s.done++
	s.mu.Unlock()
	if full {
		return backend.Object{}, &backend.Error{Op: "put", Key: key, Err: backend.ErrThrottled}
	}
	return s.Store.Put(ctx, key, data)
}

// reset returns the largest number of operations that ran at once since the last
// call.
func (s *slow) reset() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := s.most
	s.most = s.now
	return most
}

// put starts n operations at once, and returns their errors when all have ended.
func put(ctx context.Context, s backend.Store, n int) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { _, errs[i] = s.Put(ctx, fmt.Sprint("key-", i), nil) })
	}
	wg.Wait()
	return errs
}

func TestLimitBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSlow(0)
		began := time.Now()
		if err := errors.Join(put(t.Context(), backend.Limit(store, 3), 9)...); err != nil {
			t.Fatal(err)
		}
		if most := store.reset(); most != 3 {
			t.Errorf("%d operations at a time, want 3", most)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %v, want 3s: the limit was not used fully", took)
		}
	})
}

// What waits comes in by its urgency, and then by when it came.
func TestLimitLetsUrgentOnesIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := backend.Limit(newSlow(0), 1)
		var mu sync.Mutex
		var done []string
		var wg sync.WaitGroup
		start := func(u backend.Urgency, key string) {
			wg.Go(func() {
				if _, err := s.Put(backend.WithUrgency(t.Context(), u), key, nil); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				done = append(done, key)
			})
			synctest.Wait()
		}
		start(backend.Background, "under-way")
		start(backend.Background, "clean-up-1")
		start(backend.Normal, "commit-1")
		start(backend.Urgent, "restore-1")
		start(backend.Background, "clean-up-2")
		start(backend.Normal, "commit-2")
		start(backend.Urgent, "restore-2")
		wg.Wait()
		want := []string{"under-way", "restore-1", "restore-2", "commit-1", "commit-2", "clean-up-1", "clean-up-2"}
		if !slices.Equal(done, want) {
			t.Errorf("%q; want %q", done, want)
		}
	})
}

func TestLimitAdapts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSlow(0)
		s := backend.Limit(store, 8)

		// Eight operations fail together. They count as one request to slow down.
		store.capacity = -1
		put(t.Context(), s, 8)
		store.capacity = 0
		store.reset()
		put(t.Context(), s, 4)
		if most := store.reset(); most != 4 {
			t.Errorf("after a burst of throttling %d at a time, want 4", most)
		}

		// Each throttled round halves the number, down to one.
		for range 6 {
			store.capacity = -1
			throttle(t, s)
		}
		store.capacity = 0
		store.reset()
		put(t.Context(), s, 1)
		if most := store.reset(); most != 1 {
			t.Errorf("after long throttling %d at a time, want 1", most)
		}

		// It grows by about one per round, up to the limit.
		grown := []int{}
		for range 20 {
			put(t.Context(), s, 8)
			grown = append(grown, store.reset())
		}
		if !slices.IsSorted(grown) || grown[0] > 4 || grown[len(grown)-1] != 8 {
			t.Errorf("grew through %v, want a slow rise to 8", grown)
		}
	})
}

// throttle makes one operation fail with ErrThrottled.
func throttle(t *testing.T, s backend.Store) {
	t.Helper()
	if _, err := s.Create(t.Context(), "throttled", nil); !errors.Is(err, backend.ErrThrottled) {
		t.Fatal(err)
	}
}

func (s *slow) Create(context.Context, string, []byte) (backend.Object, error) {
	return backend.Object{}, &backend.Error{Op: "create", Err: backend.ErrThrottled}
}

// With a store that serves eight operations at once, the number stays near eight.
func TestLimitFindsTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSlow(8)
		s := backend.Retry(backend.Limit(store, 64), backend.Backoff{First: time.Second, Attempts: 1000})
		if err := errors.Join(put(t.Context(), s, 1000)...); err != nil {
			t.Fatal(err)
		}
		if wasted := store.done - 1000; wasted > 500 {
			t.Errorf("%d of %d operations were throttled", wasted, store.done)
		}
	})
}

func TestLimitWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSlow(0)
		s := backend.Limit(store, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { put(t.Context(), s, 1) })
		synctest.Wait()
		var waited []error
		wg.Go(func() { waited = put(ctx, s, 2) })
		synctest.Wait()
		cancel()
		wg.Wait()
		for _, err := range waited {
			var e *backend.Error
			if !errors.Is(err, context.Canceled) || !errors.As(err, &e) || e.Op != "put" || e.Store == "" {
				t.Errorf("got %v", err)
			}
		}
		if err := put(t.Context(), s, 1)[0]; err != nil || store.done != 2 {
			t.Errorf("%v, %d operations, want 2: the limit has shrunk", err, store.done)
		}
	})
}

// The consumer of a List may use the store, even if only one operation may run at a
// time.
func TestLimitListInside(t *testing.T) {
	s := backend.Limit(mem.NewBucket(time.Now).Open(), 1)
	put(t.Context(), s, 3)
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), o.Key); err != nil {
			t.Fatal(err)
		}
	}
	for o, err := range s.List(t.Context(), "", "") {
		t.Errorf("%s is left, %v", o.Key, err)
	}
}

// However a List ends, it no longer counts afterwards.
func TestLimitListLeaves(t *testing.T) {
	failing := &failingList{mem.NewBucket(time.Now).Open()}
	s := backend.Limit(failing, 1)
	put(t.Context(), s, 2)
	for _, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	for _, err := range s.List(t.Context(), "fail", "") {
		if err == nil {
			t.Fatal("no error")
		}
	}
	func() {
		defer func() { _ = recover() }()
		for _, err := range s.List(t.Context(), "", "") {
			panic(fmt.Sprint("the consumer's, not ", err))
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := put(ctx, s, 1)[0]; err != nil {
		t.Errorf("the limit has shrunk: %v", err)
	}
}

type failingList struct{ backend.Store }

func (s *failingList) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	if prefix != "fail" {
		return s.Store.List(ctx, prefix, after)
	}
	return func(yield func(backend.Object, error) bool) { yield(backend.Object{}, errors.New("list failed")) }
}
