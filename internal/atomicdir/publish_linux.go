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
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return errors.ErrUnsupported // by the file system, or the kernel
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}
