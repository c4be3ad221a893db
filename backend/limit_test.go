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

// A slow store takes a second for each operation, and notes how many of them
// are under way. With capacity, it throttles those above it.
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

// reset returns the most that were under way since the last call.
func (s *slow) reset() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := s.most
	s.most = s.now
	return most
}

// put starts n operations at once and returns their errors when all have ended.
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
			t.Errorf("took %v, want 3s: places stood empty", took)
		}
	})
}

func TestLimitAdapts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSlow(0)
		s := backend.Limit(store, 16)

		// Sixteen fail together: that is one request to slow down, not sixteen.
		store.capacity = 1
		put(t.Context(), s, 16)
		store.capacity = 0
		store.reset()
		put(t.Context(), s, 8)
		if most := store.reset(); most != 8 {
			t.Errorf("after a burst of throttling %d at a time, want 8", most)
		}

		// Each round that is throttled halves the number, but never to none.
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

		// It grows by about one a round, and ends where it began.
		grown := []int{}
		for range 20 {
			put(t.Context(), s, 16)
			grown = append(grown, store.reset())
		}
		if !slices.IsSorted(grown) || grown[0] > 8 || grown[len(grown)-1] != 16 {
			t.Errorf("grew through %v, want a slow rise to 16", grown)
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

// Against a store that serves eight at a time, the number swings about there.
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
			t.Errorf("%v, %d operations, want 2: a place was lost", err, store.done)
		}
	})
}

// The consumer of a List may use the store, also when one place is all there is.
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

// However a List ends, it gives its place back.
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
		t.Errorf("a place was lost: %v", err)
	}
}

type failingList struct{ backend.Store }

func (s *failingList) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	if prefix != "fail" {
		return s.Store.List(ctx, prefix, after)
	}
	return func(yield func(backend.Object, error) bool) { yield(backend.Object{}, errors.New("list failed")) }
}
