//go:build !linux

package holes

import (
	"errors"
	"io/fs"
	"os"
)

func isSparse(*os.File, fs.FileInfo) bool { return false }

func nextData(*os.File, int64) (int64, error) { return 0, errors.ErrUnsupported }
func nextHole(*os.File, int64) (int64, error) { return 0, errors.ErrUnsupported }
