// Package clock compares the time that a store tells with the time that passes in
// the process.
package clock

import "time"

// A Stamp is a time of the store's, and the moment of the process's own clock at
// which the store told it. No one sets that clock.
type Stamp struct {
	Store time.Time
	own   time.Time
}

// Now returns the stamp of a time that the store told just now.
func Now(store time.Time) Stamp {
	return Stamp{store, time.Now()} //nolint:forbidigo // a second opinion: nothing is decided by it alone
}

// Passed returns how much time has passed in the process since s.
func (s Stamp) Passed() time.Duration {
	return time.Since(s.own) //nolint:forbidigo // likewise
}

// Follow returns the stamp of a time that the store told just now, after s. In one
// process the store's time goes forward as fast as the process's own clock, and at most
// twice as fast. So if the store's clock and the machine's are one, and are set far
// ahead, not all is old at once; and after the machine was suspended it catches up.
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
