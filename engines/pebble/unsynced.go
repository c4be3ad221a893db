package pebble

import "github.com/cockroachdb/pebble/v2/vfs"

// An unsynced file system does not wait for the disk. Neither the database nor a cut
// needs to outlive the machine: a job goes on from its checkpoint, and a restore reads
// all that it finds in the directory. A process that dies loses nothing that it wrote.
//
// Pebble syncs every table, its directory and the MANIFEST for each flush, and every
// file of a cut. While the disk is busy each of these takes milliseconds, for which
// the loop that wants a cut waits.
type unsynced struct{ vfs.FS }

func (u unsynced) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return withoutSync(u.FS.Create(name, category))
}

func (u unsynced) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return withoutSync(u.FS.OpenReadWrite(name, category, opts...))
}

func (u unsynced) OpenDir(name string) (vfs.File, error) { return withoutSync(u.FS.OpenDir(name)) }

func (u unsynced) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return withoutSync(u.FS.ReuseForWrite(oldname, newname, category))
}

func (u unsynced) Unwrap() vfs.FS { return u.FS }

type unsyncedFile struct{ vfs.File }

func withoutSync(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

func (unsyncedFile) Sync() error     { return nil }
func (unsyncedFile) SyncData() error { return nil }

// SyncTo says that it has synced nothing: the system writes when it likes.
func (unsyncedFile) SyncTo(int64) (fullSync bool, err error) { return false, nil }
