package checkpoint

import (
	"os"
	"path"
	"path/filepath"
)

// A folder is the directory of the file that was opened last. Files come in the order of the
// tree, and whoever opens each from the root opens all directories on the way again. It is
// used by one goroutine.
type folder struct {
	root *os.Root
	path string
	dir  *os.Root // nil if none was opened yet
	file *os.File // of dir; nil before somebody wanted its descriptor
}

// find returns the directory of a file, and its name in there.
func (f *folder) find(file string) (*os.Root, string, error) {
	dir, name := path.Split(file)
	if f.dir == nil || dir != f.path {
		f.close()
		opened := f.root
		if dir != "" {
			var err error
			if opened, err = f.root.OpenRoot(filepath.FromSlash(dir)); err != nil {
				return nil, "", err
			}
		}
		f.dir, f.path = opened, dir
	}
	return f.dir, name, nil
}

func (f *folder) open(file string, flags int) (*os.File, error) {
	dir, name, err := f.find(file)
	if err != nil {
		return nil, err
	}
	return dir.OpenFile(name, flags, 0o600)
}

func (f *folder) close() {
	if f.file != nil {
		_ = f.file.Close() // as below
	}
	if f.dir != nil && f.dir != f.root {
		_ = f.dir.Close() // it was only a place to begin at
	}
	f.dir, f.file = nil, nil
}
