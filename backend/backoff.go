package backend

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Backoff says how long to wait between attempts, and how many there are. The zero
// value means the defaults.
type Backoff struct {
	// First is the longest wait before the second attempt. The longest wait doubles
	// with each further attempt. The default is 100 ms.
	First time.Duration
	// Max is the upper limit of the doubling. The default is 10 s.
	Max time.Duration
	// Attempts is the number of times that an operation is tried, the first included.
	// The default is 10, which with the other defaults covers an outage of about 20
	// s.
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

// Again decides what follows attempt n (1, 2, 3...), which failed with err. If
// another attempt should follow, it waits and returns nil. Otherwise it returns the
// error to give up with: err is permanent, there are no attempts left, or ctx has
// ended.
func (b Backoff) Again(ctx context.Context, n int, err error) error {
	b = b.withDefaults()
	if !Retryable(err) {
		return err
	}
	if n >= b.Attempts {
		return fmt.Errorf("%w (tried %d times)", err, n)
	}
	if ended := b.Wait(ctx, n); ended != nil {
		return fmt.Errorf("%w (%w while waiting to try again)", err, ended)
	}
	return nil
}

// Wait waits after failed attempt n, which may be any number. The time is random,
// between half of the longest wait and all of it, so that clients that failed
// together do not all try again at the same moment, and none tries again at once. If
// ctx ends first, Wait returns the context's error.
func (b Backoff) Wait(ctx context.Context, n int) error {
	b = b.withDefaults()
	d := min(b.First, b.Max)
	for i := 1; i < n && d < b.Max; i++ {
		d = min(2*d, b.Max)
	}
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
