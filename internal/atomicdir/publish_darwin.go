package atomicdir

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// exchange exchanges two names in a folder in one step.
func exchange(in *folder, a, b string) error {
	dir := int(in.file.Fd())
	err := unix.RenameatxNp(dir, a, dir, b, unix.RENAME_SWAP)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EINVAL) {
		return errors.ErrUnsupported // the file system has no exchange
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: in.path(a), New: in.path(b), Err: err}
	}
	return nil
}
