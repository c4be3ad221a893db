package atomicdir

import (
	"os"

	"golang.org/x/sys/unix"
)

// many is the number of files from which on one call for the whole file system
// is better than one for each. It has to write what others have left unwritten
// there too, so it is for trees whose files would take minutes one by one.
const many = 2000

func syncAll(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: path, Err: err}
	}
	return nil
}
