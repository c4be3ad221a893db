//go:build !linux

package process

import (
	"fmt"
	"os"
)

// Left finds nothing: environments cannot be read here.
func Left(string) (pid int, err error) { return 0, nil }

// Holder finds nobody: what others have open cannot be read here.
func Holder(os.FileInfo) (pid int) { return 0 }

// Describe returns what people know a process by.
func Describe(pid int) string { return fmt.Sprintf("process %d", pid) }
