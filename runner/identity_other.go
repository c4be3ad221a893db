//go:build !linux && !darwin

package runner

import (
	"errors"
	"fmt"
)

func identify(dir string) (identity, error) {
	return identity{}, fmt.Errorf("%s: a state outside the run directory: %w on this system", dir, errors.ErrUnsupported)
}
