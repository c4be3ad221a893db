// Package restored looks at a directory that comes from the owner's Resume.
package restored

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Holds reports whether dir has the file of an engine. It has none if the task is new, and
// then the directory is empty or absent. Anything else is the state of another engine: to
// begin anew beside it would be to begin in the midst of the input.
func Holds(dir, file string) (bool, error) {
	if dir == "" {
		return false, errors.New("the state's directory has no name")
	}
	path := filepath.Join(dir, file)
	_, err := os.Stat(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err == nil, err
	}
	return false, Empty(dir, path)
}

// Empty makes sure that there is nothing in dir, or no dir, because what an engine looks for is
// not there.
func Empty(dir, what string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s is not there, but %s is, so the state is not of this engine: open it with the one that wrote it, or begin a new task",
			what, filepath.Join(dir, entries[0].Name()))
	}
	return nil
}
