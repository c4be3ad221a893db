//go:build !(darwin || linux)

package local

import (
	"errors"
	"os"
)

// renameNew renames a file unless the new name is taken.
func renameNew(_ *os.File, _ string, _ *os.File, _ string) error { return errors.ErrUnsupported }
