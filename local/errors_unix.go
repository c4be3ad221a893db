//go:build unix

package local

import "syscall"

var (
	noSpace  = []error{syscall.ENOSPC, syscall.EDQUOT}
	readOnly = []error{syscall.EROFS}

	// noLinks are the errors of link(2) where there are no hard links: EPERM
	// according to its manual page, the others on some FUSE and network file systems.
	noLinks = []error{syscall.EPERM, syscall.ENOTSUP, syscall.EOPNOTSUPP, syscall.ENOSYS}
)
