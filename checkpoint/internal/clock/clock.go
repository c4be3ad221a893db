// Package clock relates the store's times to the time that passes in this process.
package clock

import "time"

// A Stamp is a time that the store has reported, together with the reading of the
// process's monotonic clock at that moment, which nobody can set.
type Stamp struct {
	Store time.Time
	own   time.Time

	// Boot is a reading of SinceBoot from before the request that last showed this
	// owner's manifest as the newest.
	Boot time.Duration
}

// Now returns the stamp of a time that the store has reported just now.
func Now(store time.Time) Stamp {
	return Stamp{Store: store, own: time.Now()} //nolint:forbidigo // a second opinion: nothing is decided by it alone
}

// Passed returns how much time has passed in the process since s.
func (s Stamp) Passed() time.Duration {
	return time.Since(s.own) //nolint:forbidigo // likewise
}

// Follow returns the stamp of a time that the store has reported just now, after s. It
// limits how fast the store's time may advance: at most by twice the time that has passed
// in the process since s. So if the store's clock is the machine's, and somebody sets it
// far ahead, checkpoints do not become old at once. Twice, and not just as fast, so that it
// catches up after the machine was suspended.
func (s Stamp) Follow(store time.Time) Stamp {
	passed := s.Passed()
	return Now(Latest(s.Store.Add(passed), Earliest(store, s.Store.Add(2*passed))))
}

// Latest returns the later of two times.
func Latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Earliest returns the earlier of two times.
func Earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
