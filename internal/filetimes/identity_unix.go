//go:build linux || darwin

package filetimes

import (
	"io/fs"
	"syscall"
	"time"
)

// Identity returns a file's change time (ctime), which no program can set, and its inode
// number. Both are zero if info does not have them.
func Identity(info fs.FileInfo) (changed time.Time, inode uint64) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}, 0
	}
	t := changeTime(s)
	return time.Unix(t.Unix()), s.Ino
}
