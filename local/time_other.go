//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || solaris)

package local

import (
	"io/fs"
	"time"
)

// changeTime returns the modification time: the best that package os has here.
func changeTime(info fs.FileInfo) time.Time { return info.ModTime() }
