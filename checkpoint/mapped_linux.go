package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// A program that writes through a shared memory map makes no system call. The
// kernel moves a file's times only when a page is first written to, which it
// notices because it has protected the page from writing, and it does that again
// only when it writes the page to the disk. Until then, half a minute or more,
// further writes to the page leave no trace.
//
// protectors are the file systems of which this is known to be so, by their
// numbers in statfs(2), and what makes them write the dirty pages of a file, and so
// protect them. TestWriteThroughAMapToADirtyPage measures it. What is not here:
//
//   - tmpfs, ramfs, hugetlbfs: there is no disk, and no page is ever protected
//     again.
//   - overlayfs: what is below may be a tmpfs, and does not show; mounted with
//     "volatile", it ignores fsync; sync_file_range does nothing there.
//   - FUSE, NFS, CIFS, Ceph, 9P: the times are what a server says, which may
//     cache them, and another machine may write to the file.
//   - all others: not measured.
var protectors = map[uint32]func(fd int) error{
	unix.EXT4_SUPER_MAGIC: writeDirtyPages, // ext2 and ext3, too
	unix.XFS_SUPER_MAGIC:  writeDirtyPages,
	// With compression, sync_file_range returns before all pages are protected.
	unix.BTRFS_SUPER_MAGIC: unix.Fsync,
}

// writeDirtyPages writes the pages that are dirty when it is called, and waits
// for that. Unlike fsync it leaves out the journal and the disk's own cache:
// whether the file outlives a loss of power is its owner's business.
func writeDirtyPages(fd int) error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	return unix.SyncFileRange(fd, 0, 0, all)
}

// catchMappedWrites sees to it that from now on each first write to a page of f
// through a memory map moves f's times. It reports whether it could.
func catchMappedWrites(f fs.File) (caught bool, err error) {
	c, ok := f.(syscall.Conn)
	if !ok {
		return false, nil // whatever it is, it is not the kernel's
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
		// The system tells of it once, and a program that opens the file later does
		// not learn of it: it must not be lost here.
		return false, fmt.Errorf("writing it to the disk: %w", err)
	}
	return false, nil // it is not permitted here, or there is no such call
}

// protector returns what protects the pages of an open file, or nil.
func protector(fd int) func(fd int) error {
	var s unix.Statfs_t
	if unix.Fstatfs(fd, &s) != nil {
		return nil
	}
	return protectors[uint32(s.Type)] //nolint:gosec // the number has 32 bits; its type differs from machine to machine
}

// writeAhead makes the system begin to write the dirty pages of files that are to
// be protected, in the background: with thousands of files, catchMappedWrites would
// wait for the disk as often. The function that it returns ends this.
func (d dirFS) writeAhead(names []string) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for _, name := range names {
			select {
			case <-quit:
				return
			default:
				if !d.startWriting(name) {
					return
				}
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// startWriting reports whether it is worth going on. Errors are found when the
// file is read.
func (d dirFS) startWriting(name string) bool {
	f, err := d.open(name, openFlags)
	if err != nil {
		return true
	}
	defer f.Close()
	if protector(int(f.Fd())) == nil {
		return false
	}
	startWriteback(f, 0, 0) // all of it
	return true
}
