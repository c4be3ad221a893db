package backend

import (
	"context"
	"fmt"
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

// Again decides what follows attempt n (1, 2, 3...), which failed with err. It
// waits and returns nil if there is to be another attempt, and otherwise
// returns the error to give up with: err is permanent, the attempts are used
// up, or ctx ended.
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

// Wait waits after failed attempt n, without a bound on n. The wait is drawn
// at random from the upper half of its range: many clients that failed
// together come back apart, and none at once. If ctx ends first, it returns
// the context's error.
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
