package atomicdir

import (
	"os"

	"golang.org/x/sys/unix"
)

// many is the number of files from which on one call for the whole file system
// is better than one for each. It has to write what others have left unwritten
// there too, so it is for trees whose files would take minutes one by one.
const many = 2000

func syncAll(dir *os.File) error {
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir.Name(), Err: err}
	}
	return nil
}
