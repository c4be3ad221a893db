package atomicdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// checkWay refuses a path that leads through a symbolic link which another user may
// have made, because that user would choose what is replaced. The check ends at the
// first name that does not exist. Windows needs no such check: there, making a link
// takes a privilege.
func checkWay(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	const root = string(filepath.Separator)
	at, rest := root, strings.TrimPrefix(dir, root)
	for range 10 * maxLinks {
		name, more, _ := strings.Cut(rest, root)
		if name == "" && more == "" {
			return nil
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case info.Mode().Type() != fs.ModeSymlink:
			at, rest = next, more
			continue
		}
		if err := checkLink(next, info); err != nil {
			return err
		}
		to, err := os.Readlink(next)
		if err != nil {
			return err
		}
		if filepath.IsAbs(to) {
			at = root
		}
		rest = strings.TrimPrefix(to, root) + root + more
	}
	return fmt.Errorf("%s: too many links", dir)
}

// checkLink refuses a symbolic link that another user may have made.
func checkLink(path string, link fs.FileInfo) error {
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	if !mayLead(link, dir) {
		return fmt.Errorf("%s: a symbolic link that another user may have made; give the directory that it names", path)
	}
	return nil
}
