//go:build unix

package checkpoint

import (
	"os"
	"path/filepath"
	"time"
)

// setAnyTime is Root.Chtimes, which takes times of the years 1678 to 2261 alone:
// it counts nanoseconds since 1970 in 64 bits.
func setAnyTime(root *os.Root, path string, t time.Time) error {
	dir, err := root.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	err = setTimeAt(int(dir.Fd()), filepath.Base(path), t)
	if err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}
