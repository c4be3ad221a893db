package runner

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func identify(dir string) (identity, error) {
	var s unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &s); err != nil {
		return identity{}, &os.PathError{Op: "statx", Path: dir, Err: err}
	}
	id := identity{Device: unix.Mkdev(s.Dev_major, s.Dev_minor), Inode: s.Ino}
	if s.Mask&unix.STATX_BTIME != 0 {
		id.Born = fmt.Sprintf("%d.%09d", s.Btime.Sec, s.Btime.Nsec)
	}
	return id, nil
}
