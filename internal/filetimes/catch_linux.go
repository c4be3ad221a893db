package filetimes

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// A program that writes through a shared memory map makes no system call. The kernel
// write-protects each mapped page, notices the first write to it by the page fault, and
// then updates the file's times and lifts the protection. It protects the page again only
// when it writes it to the disk. Until then, half a minute or more, further writes to the
// page do not change the file's times.
//
// protectors are the file systems that are known to work like this, by their numbers in
// statfs(2). Each has the function that makes it write the dirty pages of a file, and so
// protect them. TestWriteThroughAMapToADirtyPage of package checkpoint measures that. These are not in the list:
//
//   - tmpfs, ramfs, hugetlbfs: there is no disk, and no page is ever protected
//     again.
//   - overlayfs: the file system below may be a tmpfs, and one cannot tell; mounted with
//     "volatile", it ignores fsync; sync_file_range does nothing there.
//   - FUSE, NFS, CIFS, Ceph, 9P: the times come from a server, may be cached, and
//     another machine may write to the file.
//   - all others: not measured.
var protectors = map[uint32]func(fd int) error{
	unix.EXT4_SUPER_MAGIC: writeDirtyPages, // ext2 and ext3, too
	unix.XFS_SUPER_MAGIC:  writeDirtyPages,
	// With compression, sync_file_range returns before all pages are protected.
	unix.BTRFS_SUPER_MAGIC: unix.Fsync,
}

// writeDirtyPages writes the pages of a file that are dirty when it is called, and waits
// until that is done. Unlike fsync it does not flush the journal or the disk's cache:
// this is not about surviving a loss of power.
func writeDirtyPages(fd int) error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	return unix.SyncFileRange(fd, 0, 0, all)
}

// Catch makes sure that from now on the first write to each page of f through a memory map
// changes f's times. It reports whether it could.
func Catch(f fs.File) (caught bool, err error) {
	c, ok := f.(syscall.Conn)
	if !ok {
		return false, nil // not a file of the operating system
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false, err
	}
	if ctlErr := raw.Control(func(fd uintptr) { caught, err = protect(int(fd)) }); ctlErr != nil {
		return false, ctlErr
	}
	return caught, err
}

func protect(fd int) (bool, error) {
	write := protector(fd)
	if write == nil {
		return false, nil
	}
	err := write(fd)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EIO), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		// The kernel reports a failed write once. Whoever opens the file later does not
		// get the error, so it must be returned here.
		return false, fmt.Errorf("writing it to the disk: %w", err)
	}
	return false, nil // the call is not permitted, or does not exist here
}

// protector returns the function that protects the pages of an open file, or nil if its
// file system has none.
func protector(fd int) func(fd int) error {
	var s unix.Statfs_t
	if unix.Fstatfs(fd, &s) != nil {
		return nil
	}
	return protectors[uint32(s.Type)] //nolint:gosec // the number has 32 bits; its type differs from machine to machine
}

// Known reports whether an open file is on one of the file systems that are known.
func Known(fd int) bool { return protector(fd) != nil }
