//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || solaris)

package local

import (
	"io/fs"
	"time"
)

// changeTime returns the modification time: package os gives no better one on this
// system.
func changeTime(info fs.FileInfo) time.Time { return info.ModTime() }
