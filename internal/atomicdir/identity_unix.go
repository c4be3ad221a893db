//go:build unix

package atomicdir

import (
	"io/fs"
	"os"
	"syscall"
)

// An identity distinguishes a file from all others that exist at the same time.
type identity struct{ dev, ino uint64 }

func identityOf(info fs.FileInfo) identity {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}
	}
	return identity{uint64(s.Dev), uint64(s.Ino)} //nolint:unconvert // the types differ between systems
}

// sameDevice reports whether two files are on one file system.
func sameDevice(a, b fs.FileInfo) bool { return identityOf(a).dev == identityOf(b).dev }

func sameOwner(a, b fs.FileInfo) bool {
	x, ok := a.Sys().(*syscall.Stat_t)
	y, also := b.Sys().(*syscall.Stat_t)
	return ok && also && x.Uid == y.Uid
}

// isOurs reports whether a file belongs to this user or to root.
func isOurs(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && (s.Uid == 0 || int(s.Uid) == os.Geteuid())
}

// isShared reports whether anyone other than this user and root may change names in a
// directory. A sticky directory counts as shared as well: there, others can still
// make new names.
func isShared(dir fs.FileInfo) bool { return !isOurs(dir) || dir.Mode().Perm()&0o022 != 0 }

// mayLead reports whether a link in a directory may be followed: nobody but this user
// and root can have made it. Members of the directory's group are trusted.
func mayLead(link, dir fs.FileInfo) bool {
	return isOurs(link) && isOurs(dir) && (dir.Mode().Perm()&0o002 == 0 || dir.Mode()&fs.ModeSticky != 0)
}
