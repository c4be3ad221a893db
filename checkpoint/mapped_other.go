//go:build !linux

package checkpoint

import "io/fs"

// catchMappedWrites reports that writes to a file through a memory map may leave
// no trace in its times: when they move is known of Linux only.
func catchMappedWrites(fs.File) (bool, error) { return false, nil }

// writeAhead does nothing: nothing is written.
func (d dirFS) writeAhead([]string) (stop func()) { return func() {} }
