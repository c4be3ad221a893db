//go:build !unix

package atomicdir

import "io/fs"

// An identity would tell a file from others. Who may write to a directory is not
// known here, so none is taken for shared, and nothing depends on it.
type identity struct{ dev, ino uint64 }

func identityOf(fs.FileInfo) identity { return identity{} }

func sameDevice(fs.FileInfo, fs.FileInfo) bool { return true }

func sameOwner(fs.FileInfo, fs.FileInfo) bool { return true }

func isShared(fs.FileInfo) bool { return false }

func mayLead(fs.FileInfo, fs.FileInfo) bool { return true }
