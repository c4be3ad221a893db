// Package filetimes says when a file's times can be relied on: when every change of the
// file is sure to have changed them.
package filetimes

import "time"

// Tick returns the resolution of the file system's clock, as far as a time t of it tells.
// A file that changed less than a tick ago may be written to again without another time.
//
// Linux counts in jiffies, of 10 ms at most, and Windows in 16 ms; 100 ms leave a margin
// for the clock of a file server. A t of whole seconds may come from a file system that
// counts whole seconds, or from FAT, which counts units of 2 s.
func Tick(t time.Time) time.Duration {
	if t.Nanosecond() == 0 {
		return 2 * time.Second
	}
	return 100 * time.Millisecond
}
