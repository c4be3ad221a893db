//go:build linux || darwin

package checkpoint

import (
	"io/fs"
	"syscall"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// owner returns the owner and group of a file, or nil if info does not say.
func owner(info fs.FileInfo) *format.Owner {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return &format.Owner{UID: s.Uid, GID: s.Gid}
}
