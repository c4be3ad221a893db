package runner

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func identify(dir string) (identity, error) {
	var s unix.Stat_t
	if err := unix.Lstat(dir, &s); err != nil {
		return identity{}, &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	return identity{Device: uint64(s.Dev), Inode: s.Ino, Born: fmt.Sprintf("%d.%09d", s.Btim.Sec, s.Btim.Nsec)}, nil
}
