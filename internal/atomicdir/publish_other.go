//go:build !linux && !darwin

package atomicdir

import (
	"errors"
	"io/fs"
)

// isNotEmpty is true of the errors by which a rename over a directory that is
// not empty fails: they differ, and moving the old one aside harms none.
func isNotEmpty(err error) bool {
	return errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrPermission)
}

func exchange(string, string) error { return errors.ErrUnsupported }
