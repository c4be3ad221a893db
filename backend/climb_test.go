package backend_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
)

// A link is a store behind a network: an operation takes a round trip, and the time that
// its bytes take on a connection of its own and among those of all others.
type link struct {
	backend.Store
	rtt         time.Duration
	conn, total int // bytes a second; 0 is no limit

	fail atomic.Pointer[error] // of every operation

	mu        sync.Mutex
	free      time.Time // when all bytes have passed
	now, most int
}

func newLink(rtt time.Duration, conn, total int) *link {
	return &link{Store: mem.NewBucket(time.Now).Open(), rtt: rtt, conn: conn, total: total}
}

func (l *link) Put(_ context.Context, key string, data []byte) (backend.Object, error) {
	l.mu.Lock()
	l.now++
	l.most = max(l.most, l.now)
	took := l.rtt
	if l.conn > 0 {
		took += time.Duration(len(data)) * time.Second / time.Duration(l.conn)
	}
	if l.total > 0 {
		if now := time.Now(); l.free.Before(now) {
			l.free = now
		}
		l.free = l.free.Add(time.Duration(len(data)) * time.Second / time.Duration(l.total))
		took = max(took, time.Until(l.free)+l.rtt)
	}
	l.mu.Unlock()
	time.Sleep(took)
	l.mu.Lock()
	l.now--
	l.mu.Unlock()
	if err := l.fail.Load(); err != nil {
		return backend.Object{}, &backend.Error{Op: "put", Key: key, Err: *err}
	}
	return backend.Object{Key: key, Size: int64(len(data))}, nil
}

// atOnce returns the largest number of operations at once since the last call.
func (l *link) atOnce() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := l.most
	l.most = l.now
	return most
}

// send puts n objects of a size, as many at a time as s lets through, and returns how long
// that took.
func send(t *testing.T, s backend.Store, n, size int) time.Duration {
	t.Helper()
	began := time.Now()
	data := make([]byte, size)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { _, _ = s.Put(t.Context(), fmt.Sprint("key-", i), data) })
	}
	all.Wait()
	return time.Since(began)
}

const mb = 1_000_000

func TestLimitGrowsUntilTheLinkIsFull(t *testing.T) {
	for _, c := range []struct {
		name        string
		rtt         time.Duration
		conn, total int
		size        int // of an object
		least, most int // operations at a time in the end
	}{
		{"each connection has a rate", 25 * time.Millisecond, 60 * mb, 0, 8 * mb, 64, 64},
		{"all have one, that 8 fill", 10 * time.Millisecond, 0, 125 * mb, 8 * mb, 8, 16},
		{"all have one, that 24 fill", 25 * time.Millisecond, 60 * mb, 1200 * mb, 8 * mb, 18, 40},
		{"round trips of small objects", 25 * time.Millisecond, 0, 0, 1000, 64, 64},
		{"a slow line", 100 * time.Millisecond, 0, mb / 10, mb, 8, 16},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newLink(c.rtt, c.conn, c.total)
				s := backend.Limit(store, 64)
				send(t, s, 5000, c.size)
				store.atOnce()
				send(t, s, 200, c.size)
				if got := store.atOnce(); got < c.least || got > c.most {
					t.Errorf("%d at a time, want %d to %d", got, c.least, c.most)
				}
			})
		})
	}
}

// Where a link has room, most of it is used soon.
func TestLimitGrowsFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := backend.Limit(newLink(25*time.Millisecond, 60*mb, 0), 64)
		took := send(t, s, 128, 8*mb) // 2 s at 8 at a time, 0.32 s at 64
		if most := 900 * time.Millisecond; took > most {
			t.Errorf("took %v, want at most %v", took, most)
		}
	})
}

// A number that fills the link is not left for good because others were tried.
func TestLimitTriesMoreInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newLink(10*time.Millisecond, 0, 125*mb)
		s := backend.Limit(store, 64)
		send(t, s, 100, 8*mb)
		above, all := 0, 0
		for range 200 {
			store.atOnce()
			send(t, s, 40, 8*mb)
			all++
			if store.atOnce() > 8 {
				above++
			}
		}
		if above == 0 || above > all/4 {
			t.Errorf("in %d of %d batches more than 8 at a time were tried, want some, and fewer and fewer", above, all)
		}
	})
}

// What gets done while nobody waits says nothing about the link: that more gets done because
// more is asked for is no reason to allow more.
func TestLimitStaysWhereNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newLink(25*time.Millisecond, 60*mb, 0)
		s := backend.Limit(store, 64)
		for n := 1; n <= 8; n++ {
			for range 64 / n {
				send(t, s, n, 8*mb)
			}
		}
		store.atOnce()
		send(t, s, 9, 8*mb)
		if got := store.atOnce(); got != 8 {
			t.Errorf("%d at a time, want 8", got)
		}
	})
}

type timedOut struct{}

func (timedOut) Error() string { return "no byte moved" }
func (timedOut) Timeout() bool { return true }

func TestLimitShrinksAtTimeouts(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"throttled", backend.ErrThrottled, 4},
		{"timed out", timedOut{}, 4},
		{"failed otherwise", errors.New("connection reset"), 8},
		{"not there", backend.ErrNotExist, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newLink(25*time.Millisecond, 0, 0)
				s := backend.Limit(store, 64)
				store.fail.Store(&c.err)
				send(t, s, 8, 10)
				store.fail.Store(nil)
				store.atOnce()
				send(t, s, 4, 10)
				send(t, s, 8, 10)
				if got := store.atOnce(); got < c.want || got > c.want+1 {
					t.Errorf("%d at a time, want %d", got, c.want)
				}
			})
		})
	}
	t.Run("the caller's own time is over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := newLink(25*time.Millisecond, 0, 0)
			s := backend.Limit(store, 64)
			over := error(context.DeadlineExceeded)
			store.fail.Store(&over)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			_, _ = s.Put(ctx, "key", nil)
			store.fail.Store(nil)
			store.atOnce()
			send(t, s, 8, 10)
			if got := store.atOnce(); got != 8 {
				t.Errorf("%d at a time, want 8", got)
			}
		})
	})
}
