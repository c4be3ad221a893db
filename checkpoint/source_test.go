package checkpoint_test

import (
	"io"
	"testing/iotest"
)

// failsAfter yields what r yields and then err.
func failsAfter(r io.Reader, err error) io.Reader { return io.MultiReader(r, iotest.ErrReader(err)) }
