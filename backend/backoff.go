package backend

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff says how long to wait between attempts. The zero value means the
// defaults.
type Backoff struct {
	// First is the longest wait before the second attempt; the longest wait
	// doubles from one to the next. Default 100 ms.
	First time.Duration
	// Max bounds the doubling. Default 10 s.
	Max time.Duration
	// Attempts is how often an operation is tried in all. Default 10, which
	// with the other defaults bridges an outage of about 20 s.
	Attempts int
}

func (b Backoff) withDefaults() Backoff {
	if b.First <= 0 {
		b.First = 100 * time.Millisecond
	}
	if b.Max <= 0 {
		b.Max = 10 * time.Second
	}
	if b.Attempts <= 0 {
		b.Attempts = 10
	}
	return b
}

// Wait waits after failed attempt n (1, 2, 3...). The wait is drawn at random
// from the upper half of its range: many clients that failed together come
// back apart, and none at once. It returns the cause of ctx's end if that
// comes first.
func (b Backoff) Wait(ctx context.Context, n int) error {
	b = b.withDefaults()
	d := b.Max
	if n < 32 && b.First<<(n-1) > 0 {
		d = min(b.First<<(n-1), b.Max)
	}
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
