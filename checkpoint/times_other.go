//go:build !unix

package checkpoint

import (
	"errors"
	"os"
	"time"
)

// setAnyTime is Root.Chtimes for the times that it takes.
func setAnyTime(root *os.Root, path string, t time.Time) error {
	if !time.Unix(0, t.UnixNano()).Equal(t) {
		return errors.ErrUnsupported
	}
	return root.Chtimes(path, t, t)
}
