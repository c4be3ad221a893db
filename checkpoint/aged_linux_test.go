package checkpoint_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// An agedFS is a directory in which every file seems to have changed long ago, like
// most files of a real state. Without it, a test would have to wait until the times
// of its files can be relied on.
type agedFS struct {
	fs.FS         // of the operating system
	forwards bool // its files can be read only from the beginning onwards
	nameless bool // it does not pass on the operating system's information about files
}

// age is how much older files seem than they are. It is more than the time from 2000,
// the year in which the bubbles of synctest begin, until today.
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

// The clock of a file server may be behind the machine's. Then the change time of a file that
// is written to during a save looks old, and only that it has moved tells.
func TestFileServersClockIsBehind(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	settle(t, path)
	state := whileReading{&agedFS{FS: os.DirFS(dir)}, func() {
		info, err := os.Stat(path)
		if err == nil {
			err = errors.Join(os.WriteFile(path, []byte("abcdefghij"), 0o644), os.Chtimes(path, info.ModTime(), info.ModTime()))
		}
		if err != nil {
			t.Error(err)
		}
	}}
	_, err := claim(t, newTask(t)).Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.FS(state)})
	if !errors.Is(err, checkpoint.ErrChanged) {
		t.Errorf("err = %v; want ErrChanged", err)
	}
}
