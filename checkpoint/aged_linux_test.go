package checkpoint_test

import (
	"io"
	"io/fs"
	"syscall"
	"time"
)

// An agedFS is a directory that says of every file that it changed long ago, as
// is the case with most of a state: otherwise a test would have to wait until
// the times of its files can be relied on.
type agedFS struct {
	fs.FS         // an operating system's
	forwards bool // its files can only be read, from the beginning on
	nameless bool // it does not say what the operating system says of its files
}

// age is how much older files seem than they are. It is more than the time from
// the year in which the bubbles of synctest begin, 2000, until today.
const age = 100 * 365 * 24 * time.Hour

func (a *agedFS) Open(name string) (fs.File, error) {
	f, err := a.FS.Open(name)
	if err != nil {
		return nil, err
	}
	if _, isDir := f.(fs.ReadDirFile); isDir {
		if info, err := f.Stat(); err != nil || info.IsDir() {
			return f, err
		}
	}
	aged := agedFile{f, f.(syscall.Conn), a}
	if a.forwards {
		return aged, nil
	}
	return agedFileAt{aged, f.(io.ReaderAt)}, nil
}

func (a *agedFS) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(a.FS, name)
	for i, d := range list {
		list[i] = agedEntry{d, a}
	}
	return list, err
}

func (a *agedFS) ReadLink(name string) (string, error)   { return fs.ReadLink(a.FS, name) }
func (a *agedFS) Lstat(name string) (fs.FileInfo, error) { return a.age(fs.Lstat(a.FS, name)) }

func (a *agedFS) age(info fs.FileInfo, err error) (fs.FileInfo, error) {
	if err != nil {
		return nil, err
	}
	return agedInfo{info, a}, nil
}

type agedEntry struct {
	fs.DirEntry
	fs *agedFS
}

func (d agedEntry) Info() (fs.FileInfo, error) { return d.fs.age(d.DirEntry.Info()) }

type agedFile struct {
	fs.File
	syscall.Conn
	fs *agedFS
}

func (f agedFile) Stat() (fs.FileInfo, error) { return f.fs.age(f.File.Stat()) }

type agedFileAt struct {
	agedFile
	io.ReaderAt
}

type agedInfo struct {
	fs.FileInfo
	fs *agedFS
}

func (i agedInfo) Sys() any {
	if i.fs.nameless {
		return nil
	}
	s := *i.FileInfo.Sys().(*syscall.Stat_t)
	s.Ctim.Sec -= int64(age / time.Second)
	return &s
}
