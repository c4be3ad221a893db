package holes

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/filetimes"
)

// isSparse reports whether a file has fewer blocks than it is long, on a file system that is
// known.
func isSparse(f *os.File, info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	const block = 512 // the unit of st_blocks, whatever the file system's is: see stat(2)
	return ok && stat.Blocks < (info.Size()-1)/block && filetimes.Known(int(f.Fd()))
}

// nextData returns where the next data begins, or -1 if there is none.
func nextData(f *os.File, offset int64) (int64, error) {
	at, err := f.Seek(offset, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return -1, nil
	}
	return at, err
}

func nextHole(f *os.File, offset int64) (int64, error) { return f.Seek(offset, unix.SEEK_HOLE) }
