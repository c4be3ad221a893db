//go:build !linux && !darwin

package checkpoint

import (
	"io/fs"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

func owner(fs.FileInfo) *format.Owner { return nil }
