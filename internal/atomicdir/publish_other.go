//go:build !linux && !darwin

package atomicdir

import (
	"errors"
	"io/fs"
	"os"
)

// rename renames a directory, over another one only if that is empty. If it is
// not, it fails with fs.ErrExist.
func rename(a, b string) error {
	if info, err := os.Lstat(b); err == nil && info.IsDir() {
		if err := os.Remove(b); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Rename(a, b)
}

func exchange(string, string) error { return errors.ErrUnsupported }
