//go:build linux || darwin

package atomicdir

import (
	"os"

	"golang.org/x/sys/unix"
)

// rename renames a directory within a folder. It replaces an empty directory, which
// os.Root.Rename refuses to do; if to is not empty, it fails with fs.ErrExist.
func rename(in *folder, from, to string) error {
	dir := int(in.file.Fd())
	if err := unix.Renameat(dir, from, dir, to); err != nil {
		return &os.LinkError{Op: "rename", Old: in.path(from), New: in.path(to), Err: err}
	}
	return nil
}

// removeEmpty removes an empty directory. It fails if the name is that of a file.
func removeEmpty(in *folder, name string) error {
	if err := unix.Unlinkat(int(in.file.Fd()), name, unix.AT_REMOVEDIR); err != nil {
		return &os.PathError{Op: "rmdir", Path: in.path(name), Err: err}
	}
	return nil
}
