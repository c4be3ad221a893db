//go:build linux || darwin

package checkpoint

import (
	"io/fs"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// identity returns when a file's inode last changed, which no program can set
// back, and the inode's number. Both are zero if info does not say.
func identity(info fs.FileInfo) (changed time.Time, inode uint64) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}, 0
	}
	t := changeTime(s)
	return time.Unix(t.Unix()), s.Ino
}

// owner returns the owner and group of a file, or nil if info does not say.
func owner(info fs.FileInfo) *format.Owner {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return &format.Owner{UID: s.Uid, GID: s.Gid}
}
