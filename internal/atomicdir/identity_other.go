//go:build !unix

package atomicdir

import "io/fs"

// An identity is not used here: this system does not tell who may write to a
// directory, so isShared is always false.
type identity struct{ dev, ino uint64 }

func identityOf(fs.FileInfo) identity { return identity{} }

func sameDevice(fs.FileInfo, fs.FileInfo) bool { return true }

func sameOwner(fs.FileInfo, fs.FileInfo) bool { return true }

func isShared(fs.FileInfo) bool { return false }

func mayLead(fs.FileInfo, fs.FileInfo) bool { return true }
