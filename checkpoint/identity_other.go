//go:build !linux && !darwin

package checkpoint

import (
	"io/fs"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

func identity(fs.FileInfo) (time.Time, uint64) { return time.Time{}, 0 }

func owner(fs.FileInfo) *format.Owner { return nil }
