package atomicdir

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// giveAccess gives this user all rights to the subdirectory name of dir. It changes the
// directory that it has opened, and follows no link. O_PATH needs no right to the directory
// itself.
func giveAccess(dir *os.Root, name string) error {
	in, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer in.Close()
	fd, err := unix.Openat(int(in.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Fchmodat(fd, "", 0o700, unix.AT_EMPTY_PATH); err == nil {
		return nil
	}
	// Kernels before Linux 6.6 have no such call.
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o700)
}
