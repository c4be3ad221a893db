package powerloss

import (
	"io/fs"
	"os"
	"path/filepath"
)

// removeAll is os.RemoveAll for trees with read-only directories, also for a user who is
// not root.
func removeAll(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			_ = os.Chmod(path, 0o700) // if it fails, the removal says so
		}
		return nil
	})
	return os.RemoveAll(dir)
}
