//go:build !linux

package clock

import "time"

// SinceBoot returns how long this process has been running. It may stand still while the
// machine is suspended.
func SinceBoot() time.Duration { return monotonic() }
