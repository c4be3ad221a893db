//go:build unix

package local

import "syscall"

var (
	noSpace  = []error{syscall.ENOSPC, syscall.EDQUOT}
	readOnly = []error{syscall.EROFS}

	// noLinks is what link(2) says where there are no hard links: EPERM by its
	// manual page, the others on some FUSE and network file systems.
	noLinks = []error{syscall.EPERM, syscall.ENOTSUP, syscall.EOPNOTSUPP, syscall.ENOSYS}
)
