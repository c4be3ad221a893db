//go:build !linux && !darwin

package atomicdir

import (
	"errors"
	"io/fs"
)

// rename renames a directory within a folder. It replaces an empty directory; if to
// is not empty, it fails with fs.ErrExist.
func rename(in *folder, from, to string) error {
	if info, err := in.Lstat(to); err == nil && info.IsDir() {
		if err := in.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return in.Rename(from, to)
}

func exchange(*folder, string, string) error { return errors.ErrUnsupported }

// removeEmpty removes an empty directory.
func removeEmpty(in *folder, name string) error { return in.Remove(name) }
