package checkpoint_test

import (
	"io/fs"
	"slices"
	"sync"
)

// An openedFS records which regular files of a file system are opened.
type openedFS struct {
	fs.FS

	mu     sync.Mutex
	opened []string
}

func (o *openedFS) Open(name string) (fs.File, error) {
	f, err := o.FS.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		o.mu.Lock()
		o.opened = append(o.opened, name)
		o.mu.Unlock()
	}
	return f, err
}

func (o *openedFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(o.FS, name) }
func (o *openedFS) ReadLink(name string) (string, error)       { return fs.ReadLink(o.FS, name) }
func (o *openedFS) Lstat(name string) (fs.FileInfo, error)     { return fs.Lstat(o.FS, name) }

// take returns the files that were opened since the last call, sorted by name.
func (o *openedFS) take() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.opened
	o.opened = nil
	slices.Sort(list)
	return list
}
