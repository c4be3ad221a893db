package atomicdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// A folder is a directory that is held open: it stays the same directory even if its
// name changes.
type folder struct {
	*os.Root
	file *os.File    // the same directory as Root
	info fs.FileInfo // as it was when the folder was opened
}

// openFolder opens the directory at path. It follows symbolic links.
func openFolder(path string) (*folder, error) {
	root, err := os.OpenRoot(path + string(filepath.Separator) + ".") // "/." makes the open of a FIFO fail; otherwise it would wait for a writer
	if err != nil {
		return nil, err
	}
	return newFolder(root)
}

func newFolder(root *os.Root) (*folder, error) {
	file, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	f := &folder{Root: root, file: file}
	if f.info, err = file.Stat(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// open opens the subdirectory name of f. It does not follow a symbolic link.
func (f *folder) open(name string) (*folder, error) {
	info, err := f.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: f.path(name), Err: syscall.ENOTDIR}
	}
	root, err := f.OpenRoot(name + "/.") // "/.": name may have become a FIFO meanwhile, whose open would wait for a writer
	if err != nil {
		return nil, err
	}
	sub, err := newFolder(root)
	if err != nil {
		return nil, err
	}
	if !os.SameFile(info, sub.info) { // name has become a link meanwhile, which OpenRoot follows
		return nil, errors.Join(tampered(f.path(name)), sub.close())
	}
	return sub, nil
}

// Name returns the path by which the directory was opened.
func (f *folder) Name() string { return filepath.Clean(f.Root.Name()) }

// path returns the path of a name in f. It is for messages only: operations use the
// name, relative to the open directory.
func (f *folder) path(name string) string { return filepath.Join(f.Name(), name) }

// has reports whether name in f is the directory that g holds open.
func (f *folder) has(name string, g *folder) bool {
	info, err := f.Lstat(name)
	return err == nil && os.SameFile(info, g.info)
}

// list returns the entries of f.
func (f *folder) list() ([]fs.DirEntry, error) { return listOf(f.Root) }

func listOf(root *os.Root) ([]fs.DirEntry, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	entries, err := dir.ReadDir(-1)
	return entries, errors.Join(err, dir.Close())
}

// sync makes the names in f durable.
func (f *folder) sync() error { return syncFile(f.file) }

// syncFile makes the data of a file durable, or the names in a directory.
func syncFile(f *os.File) error {
	err := f.Sync()
	if runtime.GOOS == "windows" {
		return nil // Windows can sync neither directories nor files that are open for reading only
	}
	return err
}

// close closes the descriptors, if they are still open.
func (f *folder) close() error {
	if f.file == nil {
		return nil
	}
	err := errors.Join(f.file.Close(), f.Close())
	f.file = nil
	return err
}

// errTampered means that someone has given a name to another file meanwhile.
var errTampered = errors.New("has become another file meanwhile, and nothing was put in place; " +
	"try again, or choose a directory where nobody else may change names")

func tampered(path string) error { return fmt.Errorf("%s %w", path, errTampered) }
