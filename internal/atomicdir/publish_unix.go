//go:build linux || darwin

package atomicdir

import (
	"os"

	"golang.org/x/sys/unix"
)

// rename renames a directory in a folder, over another one only if that is empty,
// which os.Root.Rename refuses. If it is not, it fails with fs.ErrExist.
func rename(in *folder, from, to string) error {
	dir := int(in.file.Fd())
	if err := unix.Renameat(dir, from, dir, to); err != nil {
		return &os.LinkError{Op: "rename", Old: in.path(from), New: in.path(to), Err: err}
	}
	return nil
}

// removeEmpty removes a directory that is empty, and no file.
func removeEmpty(in *folder, name string) error {
	if err := unix.Unlinkat(int(in.file.Fd()), name, unix.AT_REMOVEDIR); err != nil {
		return &os.PathError{Op: "rmdir", Path: in.path(name), Err: err}
	}
	return nil
}
