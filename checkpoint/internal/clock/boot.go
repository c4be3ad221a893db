package clock

import "time"

var started = time.Now() //nolint:forbidigo // a second opinion: nothing is decided by it alone

// monotonic is SinceBoot where the system does not tell that.
func monotonic() time.Duration {
	return time.Since(started) //nolint:forbidigo // likewise
}
