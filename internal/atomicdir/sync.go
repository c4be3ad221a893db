package atomicdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// syncs is how many files are made durable at a time. Journalling file systems
// make one commit of what is asked of them at once.
const syncs = 8

// syncTree makes what was built durable, with all that is in it. Files that their
// modes keep this process from opening need a system that can sync them all.
func (d *Dir) syncTree() error {
	paths, err := syncable(d.aside)
	if errors.Is(err, fs.ErrPermission) || len(paths) > many {
		return d.syncAll()
	}
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(syncs)
	for _, p := range paths {
		group.Go(func() error { return d.syncFile(p) })
	}
	err = group.Wait()
	if errors.Is(err, fs.ErrPermission) {
		return d.syncAll()
	}
	return err
}

func (d *Dir) syncAll() error {
	return d.step("syncall", d.aside, func() error { return syncAll(d.aside) })
}

func (d *Dir) syncFile(path string) error {
	return d.step("sync", path, func() error { return syncFile(path) })
}

// syncable returns the regular files and directories in a tree.
func syncable(path string) (paths []string, err error) {
	err = filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err == nil && (e.IsDir() || e.Type().IsRegular()) {
			paths = append(paths, p)
		}
		return err
	})
	return paths, err
}

// syncFile makes a file durable, or the names in a directory.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if runtime.GOOS == "windows" {
		err = nil // it syncs neither directories nor what is open for reading
	}
	return errors.Join(err, f.Close())
}
