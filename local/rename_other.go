//go:build !(darwin || linux)

package local

import (
	"errors"
	"os"
)

// renameNew would rename a file and fail if the new name exists. This system has no
// such call.
func renameNew(_ *os.File, _ string, _ *os.File, _ string) error { return errors.ErrUnsupported }
