package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/holdfast-io/holdfast/backend"
)

// A directory on which a volume should be mounted, and is not, looks like a new store: it
// is empty. With must_exist=true in its URL, a store has to be one to which something was
// written before. The directory of temporary files shows that: the first write makes it,
// before anything else, and nothing removes it.

// checkWritten returns ErrNoStore if the store must exist, and nothing was ever written to
// the directory root.
func (s *Store) checkWritten(root *os.Root) error {
	if !s.mustExist {
		return nil
	}
	_, err := root.Lstat(tempDir)
	if errors.Is(err, fs.ErrNotExist) {
		return s.missing("has no directory " + tempDir + ", so nothing was ever written to it")
	}
	return err
}

// missing returns the error of a store that must exist and does not. what says what the
// directory looks like.
func (s *Store) missing(what string) error {
	return fmt.Errorf("%w: the URL says must_exist=true, and %s %s. Is a volume not mounted? "+
		"For a new store, leave must_exist out once", backend.ErrNoStore, s.dir, what)
}
