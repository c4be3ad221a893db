package atomicdir

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// syncs is the number of files that are synced at a time. A journalling file system
// makes one commit of all fsyncs that wait at the same time.
const syncs = 8

// syncTree makes the content of the new directory durable.
func (d *Dir) syncTree() error {
	paths, err := syncable(d.built.FS())
	if len(paths) > many {
		return d.syncAll()
	}
	if err != nil {
		return d.orSyncAll(err)
	}
	var group errgroup.Group
	group.SetLimit(syncs)
	for _, p := range paths {
		group.Go(func() error { return d.syncPath(p) })
	}
	return d.orSyncAll(group.Wait())
}

// orSyncAll handles the error of a sync: if this process was not permitted to open a
// file, it syncs the whole file system instead, where the system can do that.
func (d *Dir) orSyncAll(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return d.syncAll()
	}
	return err
}

func (d *Dir) syncAll() error {
	return d.step("syncall", d.parent.path(d.aside), func() error { return syncAll(d.built.file) })
}

// syncPath makes a file or directory in the new directory durable.
func (d *Dir) syncPath(path string) error {
	name := filepath.FromSlash(path)
	return d.step("sync", filepath.Join(d.parent.path(d.aside), name), func() error {
		f, err := d.built.Open(name)
		if err != nil {
			return err
		}
		return errors.Join(syncFile(f), f.Close())
	})
}

func (d *Dir) syncFolder(f *folder) error { return d.step("sync", f.Name(), f.sync) }

// syncable returns the regular files and directories in a tree, without its root. If there are many, it
// returns some: more than many.
func syncable(tree fs.FS) (paths []string, err error) {
	err = fs.WalkDir(tree, ".", func(p string, e fs.DirEntry, err error) error {
		if err == nil && p != "." && (e.IsDir() || e.Type().IsRegular()) {
			paths = append(paths, p)
		}
		if len(paths) > many {
			return fs.SkipAll
		}
		return err
	})
	return paths, err
}
