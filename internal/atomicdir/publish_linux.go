package atomicdir

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func isNotEmpty(err error) bool {
	return errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST)
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

// syncTree makes a directory with all that is in it durable. It is one call
// for the whole file system: one fsync for each of 50,000 files takes minutes.
func syncTree(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		_ = f.Close()
		return &os.PathError{Op: "syncfs", Path: path, Err: err}
	}
	return f.Close()
}
