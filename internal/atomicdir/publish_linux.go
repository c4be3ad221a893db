package atomicdir

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// exchange exchanges two names in a folder in one step.
func exchange(in *folder, a, b string) error {
	dir := int(in.file.Fd())
	err := unix.Renameat2(dir, a, dir, b, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return errors.ErrUnsupported // the file system or the kernel has no exchange
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: in.path(a), New: in.path(b), Err: err}
	}
	return nil
}
