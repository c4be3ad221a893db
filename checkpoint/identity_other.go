//go:build !linux && !darwin

package checkpoint

import (
	"io/fs"
	"time"
)

func identity(fs.FileInfo) (time.Time, uint64) { return time.Time{}, 0 }
