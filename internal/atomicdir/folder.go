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

// A folder is a directory that is held by its descriptor: it stays the same one,
// whatever becomes of its name.
type folder struct {
	*os.Root
	file *os.File    // the same directory
	info fs.FileInfo // when it was opened
}

// openFolder opens the directory that a path leads to.
func openFolder(path string) (*folder, error) {
	root, err := os.OpenRoot(path + string(filepath.Separator) + ".") // a FIFO, which would wait for a writer, is none
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

// open opens the directory that has a name in f. A link is none.
func (f *folder) open(name string) (*folder, error) {
	info, err := f.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: f.path(name), Err: syscall.ENOTDIR}
	}
	root, err := f.OpenRoot(name + "/.") // a FIFO that has come in its place would wait for a writer
	if err != nil {
		return nil, err
	}
	sub, err := newFolder(root)
	if err != nil {
		return nil, err
	}
	if !os.SameFile(info, sub.info) { // OpenRoot follows a link that has come in its place
		return nil, errors.Join(tampered(f.path(name)), sub.close())
	}
	return sub, nil
}

// Name returns the path with which the directory was opened.
func (f *folder) Name() string { return filepath.Clean(f.Root.Name()) }

// path returns the path of what has a name in f, for messages. What there is to
// do with it is done by the name.
func (f *folder) path(name string) string { return filepath.Join(f.Name(), name) }

// has reports whether a name in f stands for the directory that is held as g.
func (f *folder) has(name string, g *folder) bool {
	info, err := f.Lstat(name)
	return err == nil && os.SameFile(info, g.info)
}

// list returns what is in f.
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

// syncFile makes a file durable, or the names in a directory.
func syncFile(f *os.File) error {
	err := f.Sync()
	if runtime.GOOS == "windows" {
		return nil // it syncs neither directories nor what is open for reading
	}
	return err
}

// close gives the descriptor up, if that was not done before.
func (f *folder) close() error {
	if f.file == nil {
		return nil
	}
	err := errors.Join(f.file.Close(), f.Close())
	f.file = nil
	return err
}

// errTampered means that a name has come to stand for another file.
var errTampered = errors.New("has become another file meanwhile, and nothing was put in place; " +
	"try again, or choose a directory where nobody else may change names")

func tampered(path string) error { return fmt.Errorf("%s %w", path, errTampered) }
