//go:build !unix

package checkpoint

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// makeWhole makes a file with all of its data, its permissions and its time.
func (f *folder) makeWhole(file string, data []byte, perm fs.FileMode, t time.Time) error {
	out, err := f.open(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = out.Write(data)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	dir, name, err := f.find(file)
	if err == nil && !t.IsZero() {
		err = dir.Chtimes(name, t, t)
	}
	if err != nil {
		return err
	}
	return dir.Chmod(name, perm)
}
