package atomicdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// maxLinks is the largest number of symbolic links from a target to a directory.
const maxLinks = 40

// resolve returns the path that is to be replaced. If target is a symbolic link, that
// is the path that it leads to, so that the link stays valid. Links on the path to
// the parent are resolved too.
func resolve(target string) (string, error) {
	named, err := filepath.Abs(target)
	if err != nil {
		return "", err
	}
	path := named
	for n := range maxLinks {
		if err := checkWay(filepath.Dir(path)); err != nil {
			return "", err
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if errors.Is(err, fs.ErrNotExist) && n == 0 {
			return path, nil // the parent does not exist yet
		}
		var info fs.FileInfo
		if err == nil {
			path = filepath.Join(dir, filepath.Base(path))
			info, err = os.Lstat(path)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) && n == 0:
			return path, nil
		case errors.Is(err, fs.ErrNotExist):
			return "", toNothing(named)
		case err != nil:
			return "", err
		case path == dir:
			return "", fmt.Errorf("%s: a root directory cannot be replaced", path)
		case info.Mode().Type() != fs.ModeSymlink:
			return path, nil
		}
		path, err = follow(path, info)
		if errors.Is(err, fs.ErrNotExist) {
			return "", toNothing(named)
		}
		if err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("%s: too many links", named)
}

func toNothing(link string) error {
	return fmt.Errorf("%s: a symbolic link to nothing; remove it, or make the directory that it names", link)
}

// follow returns where the link at path leads to. At most the last name of the result
// is a link again.
func follow(path string, link fs.FileInfo) (string, error) {
	if err := checkLink(path, link); err != nil {
		return "", err
	}
	to, err := os.Readlink(path)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(to) {
		to = filepath.Dir(path) + string(filepath.Separator) + to // not filepath.Join: ".." after a link means the parent of where the link leads
	}
	above, name := filepath.Split(to)
	if name == "" || name == "." || name == ".." {
		return filepath.EvalSymlinks(to)
	}
	if above, err = filepath.EvalSymlinks(above); err != nil {
		return "", err
	}
	return filepath.Join(above, name), nil
}

// openParent opens the target's parent. It makes missing directories.
func (d *Dir) openParent(path string) (*folder, error) {
	dir, err := openFolder(path)
	if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
		return dir, err
	}
	above, err := d.openParent(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	d.made = append(d.made, above)
	name := filepath.Base(path)
	err = d.step("mkdir", path, func() error { return above.Mkdir(name, 0o777) })
	if errors.Is(err, fs.ErrExist) { // another process made it first, or it is a file
		return above.open(name)
	}
	if err != nil {
		return nil, err
	}
	if dir, err = above.open(name); err != nil {
		return nil, err
	}
	if !isShared(above.info) {
		return dir, nil
	}
	if entries, err := dir.list(); err != nil || len(entries) > 0 { // it is not the directory that was made
		return nil, errors.Join(tampered(path), dir.close())
	}
	return dir, nil
}

// openTarget opens the directory that is to be replaced, if there is one, and checks
// that it can be replaced. It tries again if another process replaces it at the same
// moment.
func (d *Dir) openTarget() (err error) {
	for range 10 {
		err = d.lookAtTarget()
		if !errors.Is(err, errTampered) && !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if d.old != nil {
			_ = d.old.close()
			d.old = nil
		}
	}
	return err
}

func (d *Dir) lookAtTarget() error {
	path := d.parent.path(d.target)
	info, err := d.parent.Lstat(d.target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s: not a directory; choose another target", path)
	}
	if d.old, err = d.parent.open(d.target); err != nil {
		return err
	}
	if err := d.checkReplaceable(path); err != nil {
		return err
	}
	entries, err := d.old.list()
	if err == nil && len(entries) > 0 && !d.replace {
		err = fmt.Errorf("%s: %w", path, ErrNotEmpty)
	}
	return err
}

// checkReplaceable refuses directories that cannot be replaced: a mount point, which
// the system does not rename, and the working directory, because this process would
// then be in a deleted directory.
func (d *Dir) checkReplaceable(path string) error {
	if !sameDevice(d.old.info, d.parent.info) {
		return fmt.Errorf("%s is a mount point, which cannot be replaced; choose a directory below it", path)
	}
	if err := checkMounts(path); err != nil {
		return err
	}
	if here, err := os.Stat("."); err == nil && os.SameFile(here, d.old.info) {
		return fmt.Errorf("%s is the working directory, which cannot be replaced; go elsewhere first", path)
	}
	return nil
}

// checkMounts refuses a directory in which something is mounted: what is mounted
// would be deleted together with the old directory.
func checkMounts(target string) error {
	point, err := mountBelow(target)
	if err == nil && point != "" {
		err = fmt.Errorf("%s is a mount point in the directory that is to be replaced, and what it holds would be lost; "+
			"unmount it, or choose another directory", point)
	}
	return err
}
