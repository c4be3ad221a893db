package checkpoint

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback makes the system begin to write a part of a file to the disk,
// and does not wait for it. Left to itself it begins after seconds, and the fsync
// at the end of a restore has to wait for all of it.
func startWriteback(f *os.File, offset, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE) // the fsync has the errors
}
