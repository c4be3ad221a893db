//go:build !linux

package atomicdir

import (
	"io/fs"
	"os"
	"path/filepath"
)

// mountBelow returns a directory below dir that is on another file system, or
// "".
func mountBelow(dir string) (point string, err error) {
	top, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil && !sameDevice(top, info) {
			point = path
			return fs.SkipAll
		}
		return nil
	})
	return point, err
}
