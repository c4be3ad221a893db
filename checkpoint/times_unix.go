//go:build unix

package checkpoint

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// setAnyTime is Root.Chtimes, which takes times of the years 1678 to 2261 alone:
// it counts nanoseconds since 1970 in 64 bits.
func setAnyTime(root *os.Root, path string, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	dir, err := root.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	err = unix.UtimesNanoAt(int(dir.Fd()), filepath.Base(path), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}
