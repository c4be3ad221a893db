// Package holes tells which ranges of a sparse file are holes: they have no blocks, and read as
// zeros. So they need not be read, nor written to a copy.
package holes

import (
	"io/fs"
	"os"
)

// A Finder finds the holes of one file. It is used by one goroutine.
type Finder struct {
	file     *os.File
	size     int64
	from, to int64 // the range that was found last
	hole     bool  // what it is
}

// Least is the size of a file, in bytes, from which on its holes are worth finding.
const Least = 1 << 20

// Of returns a Finder of a file's holes. info describes the file. It returns nil if the file has
// no holes, or is so small that they do not matter, or if what the file system says of holes is
// not known to be right. Wrong would be to call something a hole while the data that was
// written there is still in memory alone: OpenZFS did that until 2.2.2 (its issue 15526).
// Ext4, XFS and Btrfs do not.
//
// The Finder moves the file's position: read with ReadAt.
func Of(f fs.File, info fs.FileInfo) *Finder {
	file, ok := f.(*os.File)
	if !ok || info.Size() < Least || !isSparse(file, info) {
		return nil
	}
	return &Finder{file: file, size: info.Size()}
}

// At reports whether an offset, which must be before the end of the file, is in a hole, and how
// many bytes from there on are in the same hole, or in none. What is said of a file that is
// written to meanwhile may be outdated.
func (f *Finder) At(offset int64) (n int64, hole bool) {
	if offset < f.from || offset >= f.to {
		f.find(offset)
	}
	return f.to - offset, f.hole
}

// find finds the range that begins at an offset. If the file system cannot tell, all the rest
// is data.
func (f *Finder) find(offset int64) {
	f.from, f.to, f.hole = offset, f.size, false
	data, err := nextData(f.file, offset)
	switch {
	case err != nil:
		return
	case data < 0:
		f.hole = true
		return
	case data > offset:
		f.to, f.hole = min(data, f.size), true
		return
	}
	if hole, err := nextHole(f.file, offset); err == nil && hole > offset {
		f.to = min(hole, f.size)
	}
}
