package local

import (
	"os"

	"golang.org/x/sys/unix"
)

// renameNew renames a file, and fails if the new name exists.
func renameNew(oldDir *os.File, old string, newDir *os.File, new string) error {
	return unix.RenameatxNp(int(oldDir.Fd()), old, int(newDir.Fd()), new, unix.RENAME_EXCL)
}
