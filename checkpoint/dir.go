package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// A dirFS is the tree below a directory. No name leads out of the directory, and opening
// a file that has become a FIFO or a device does not block.
type dirFS struct{ root *os.Root }

// openRoot opens a directory. The "." after its name makes that fail for anything else.
// Without it, a FIFO would be opened, which blocks until there is a writer.
func openRoot(path string) (*os.Root, error) {
	root, err := os.OpenRoot(path + string(filepath.Separator) + ".")
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		pe.Path = path
	}
	return root, err
}

func (d dirFS) open(name string, flags int) (*os.File, error) {
	local, err := filepath.Localize(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return d.root.OpenFile(local, os.O_RDONLY|flags, 0)
}

func (d dirFS) Open(name string) (fs.File, error) {
	f, err := d.open(name, openFlags)
	if err != nil {
		return nil, err // not f: a nil *os.File in an fs.File is not nil
	}
	return f, nil
}

func (d dirFS) ReadDir(name string) ([]fs.DirEntry, error) {
	f, err := d.open(name, openFlags|openDirFlags)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.ReadDir(-1)
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return list, err
}

func (d dirFS) ReadLink(name string) (string, error) {
	return d.root.Readlink(filepath.FromSlash(name))
}

func (d dirFS) Lstat(name string) (fs.FileInfo, error) {
	return d.root.Lstat(filepath.FromSlash(name))
}

// openRegular opens a regular file. If something else has replaced it since it was listed,
// that is not read: a read from a FIFO may block for ever.
func openRegular(fsys fs.FS, name string) (fs.File, fs.FileInfo, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err := regular(f)
	return f, info, err
}

// regular describes a file that was just opened. It closes one that is not regular.
func regular(f fs.File) (fs.FileInfo, error) {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: it is no longer a regular file", ErrChanged)
	}
	if err != nil {
		_ = f.Close() // nothing was read
		return nil, err
	}
	return info, nil
}
