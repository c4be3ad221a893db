package atomicdir

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// rename renames a directory, over another one only if that is empty, which
// os.Rename refuses. If it is not, it fails with fs.ErrExist.
func rename(a, b string) error {
	if err := unix.Rename(a, b); err != nil {
		return &os.LinkError{Op: "rename", Old: a, New: b, Err: err}
	}
	return nil
}

func exchange(a, b string) error {
	err := unix.RenamexNp(a, b, unix.RENAME_SWAP)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EINVAL) {
		return errors.ErrUnsupported // by the file system
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}
