//go:build darwin || freebsd || netbsd

package local

import (
	"io/fs"
	"syscall"
	"time"
)

// changeTime returns the time at which the inode was last changed.
func changeTime(info fs.FileInfo) time.Time {
	return time.Unix(info.Sys().(*syscall.Stat_t).Ctimespec.Unix())
}
