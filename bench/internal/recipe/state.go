// Package recipe makes directories of the kinds that stateful jobs have, for
// benchmarks to save: the same bytes on every machine and in every run, a
// database's files excepted. docs/benchmarks.md describes them for readers.
package recipe

import (
	"fmt"
	"os"
	"path/filepath"
)

// A State is a directory that can be changed, and changed back. It is used by
// one goroutine at a time.
type State struct {
	Dir string // the directory

	Files   int   // in it
	Bytes   int64 // in the files
	Changed int64 // of which Change makes others, in bytes

	// Change makes the directory what it is after some more work. Rewind makes
	// it what it was at first. Both leave it to the caller to sync the disk.
	Change, Rewind func() error
}

// count counts what is in s's directory.
func (s *State) count() error {
	s.Files, s.Bytes = 0, 0
	return filepath.WalkDir(s.Dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no regular file", info.Name())
		}
		s.Files++
		s.Bytes += info.Size()
		return nil
	})
}
