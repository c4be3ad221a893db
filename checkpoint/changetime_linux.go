package checkpoint

import (
	"io/fs"
	"syscall"
	"time"
)

// changeTime returns when a file's inode last changed, which no program can
// set back, or the zero time if info does not say.
func changeTime(info fs.FileInfo) time.Time {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(s.Ctim.Unix())
	}
	return time.Time{}
}
