package atomicdir

import (
	"os"

	"golang.org/x/sys/unix"
)

// many is the number of files above which one sync of the whole file system replaces
// a sync of each file. It also writes what other programs have not yet written there,
// so it pays only for trees whose files would take minutes one by one.
const many = 2000

func syncAll(dir *os.File) error {
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir.Name(), Err: err}
	}
	return nil
}
