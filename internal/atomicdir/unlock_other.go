//go:build !linux

package atomicdir

import "os"

// giveAccess gives this user all rights to the subdirectory name of dir. It goes by the
// name, and follows a link that someone has put in its place, but not out of dir.
func giveAccess(dir *os.Root, name string) error { return dir.Chmod(name, 0o700) }
