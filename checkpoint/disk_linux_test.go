package checkpoint_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// diskDir returns a new directory on a file system where a save relies on file times:
// in the directory for temporary files or, if that is in memory, beside the sources.
func diskDir(t tester) string {
	t.Helper()
	if isDisk(t, os.TempDir()) {
		return tempDir(t)
	}
	if !isDisk(t, ".") {
		t.Skip("neither temporary files nor the sources are on ext4, XFS or Btrfs: set TMPDIR to a directory that is")
	}
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	return tempDirIn(t, here)
}

func isDisk(t tester, dir string) bool {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	switch s.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
		return true
	}
	return false
}

// An onDiskFS says that its files are on a disk.
type onDiskFS struct {
	fs.FS
	disk *os.File
}

func asIfOnDisk(t tester, fsys fs.FS) fs.FS {
	t.Helper()
	disk, err := os.Open(diskDir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() }) // nothing was written
	return onDiskFS{fsys, disk}
}

func (o onDiskFS) Open(name string) (fs.File, error) {
	f, err := o.FS.Open(name)
	if _, isDir := f.(fs.ReadDirFile); isDir || err != nil {
		return f, err
	}
	return struct {
		fs.File
		syscall.Conn
	}{f, o.disk}, nil
}

func (o onDiskFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(o.FS, name) }
