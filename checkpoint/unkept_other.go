//go:build !linux

package checkpoint

import "io/fs"

// hasUnkept returns false: extended attributes are looked for on Linux only.
func hasUnkept(fs.File) bool { return false }

func (d dirFS) hasUnkept(string) bool { return false }
