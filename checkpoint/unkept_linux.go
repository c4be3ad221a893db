package checkpoint

import (
	"bytes"
	"errors"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// A checkpoint does not keep extended attributes, among which are ACLs. A save says so if
// one of these is lost by that. Others do not count: SELinux labels, for example, are given
// to each new file by the system.
var (
	unkeptNames  = []string{"system.posix_acl_access", "system.posix_acl_default", "security.capability"}
	unkeptPrefix = []byte("user.")
)

// hasUnkept reports whether an open file or directory has attributes that a checkpoint does
// not keep. It is one system call. It returns false if that cannot be found out.
func hasUnkept(f fs.File) (found bool) {
	c, ok := f.(syscall.Conn)
	if !ok {
		return false // not a file of the operating system
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) { found = listsUnkept(int(fd)) })
	return found && err == nil
}

func listsUnkept(fd int) bool {
	var few [512]byte
	names := few[:]
	n, err := unix.Flistxattr(fd, names)
	if errors.Is(err, unix.ERANGE) {
		names = make([]byte, 64<<10) // the most that Linux returns
		n, err = unix.Flistxattr(fd, names)
	}
	if err != nil {
		return false // the file system has none, for example
	}
	for name := range bytes.SplitSeq(names[:n], []byte{0}) {
		if isUnkept(name) {
			return true
		}
	}
	return false
}

func isUnkept(name []byte) bool {
	for _, one := range unkeptNames {
		if string(name) == one {
			return true
		}
	}
	return bytes.HasPrefix(name, unkeptPrefix)
}

// hasUnkept is the function above for the directory at a path.
func (d dirFS) hasUnkept(path string) bool {
	f, err := d.open(path, openFlags|openDirFlags)
	if err != nil {
		return false // it occurs again when the directory is listed
	}
	defer f.Close()
	return hasUnkept(f)
}
