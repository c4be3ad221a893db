// Package local keeps objects as files in a directory, for example
// file:///var/lib/orders. Importing it registers the scheme file.
//
// # URLs
//
// A URL is file:///path, with an absolute path in which ?, # and % are escaped
// as %3F, %23 and %25. It takes one parameter: must_exist=true makes it an error
// (backend.ErrNoStore) to open a directory that is absent, or to which no Store has ever
// written. Set it once a job exists, above all if the directory is on a volume that may
// not be mounted: an empty mount point looks like a new store otherwise.
//
// The first write makes the directory; a handle that only reads makes nothing. A
// directory that does not exist is a store to which nothing was written yet: it lists
// as empty. A directory that disappears or is replaced while a handle is open gives
// ErrNoStore, and one that cannot be read gives ErrPermission: neither is ever taken
// for empty.
//
// # Layout
//
// The object "a/b/c" is the file a/b/c below the directory, with exactly the object's
// data. Only regular files are objects: others are not listed, and a key that one of
// them has cannot be created. Symbolic links below the directory are never followed
// out of it, and never written through. Files whose names cannot be part of a key are
// not listed. When an object is deleted, its directories are kept, because another
// process may be about to use them.
//
// Temporary files are in .holdfast-tmp. Each handle that writes holds a lock there
// until it is closed. The next handle that writes removes the files of processes that
// have died.
//
// The store's own directory is made with mode 0700, because checkpoints contain the
// data of their job. If others must have access, make the directory beforehand. Below
// it, the umask decides.
//
// # Durability
//
// Create and Put write a temporary file, fsync it, give it its name by link(2) or
// rename(2), and fsync the directory. Once per handle, they also fsync the parent of
// every directory on the path to the object, even if they did not make it: another
// process may have made it a moment ago. A loss of power may undo a Delete, but
// nothing else.
//
// An object can be seen before its name is durable. So Delete first fsyncs the
// directories in which its handle has found objects since its last Delete. Otherwise
// a loss of power could undo the creation of an object, and keep the deletion of
// others that it replaces.
//
// An fsync cannot be interrupted. Whether the context has ended is checked before and
// after it, and after each megabyte of data.
//
// # Time
//
// An object's time is its inode's change time (ctime). The kernel sets it when the
// object gets its name, and no program can choose it. Create and Put return exactly
// this time. List may give a later one if the file was touched since: by chmod, by
// copying the store, or by removing a temporary name that a killed process left. Then
// the object looks younger than it is, and is kept longer. The clock is that of the
// machine or, on a network file system, of the file server.
//
// # Weaker guarantees
//
// On NFS, Create is exclusive among the clients of one server, because link(2) is
// atomic there. Another client may list a new object only when its cache of the
// directory expires (mount with lookupcache=none or actimeo=0 to prevent that). Locks
// need a lock service. On a mount without one (nolock, local_lock=flock) a machine
// may remove the temporary files of a living process on another machine. Its Create
// or Put then fails without having written anything, and can be retried.
//
// On FAT and other file systems without hard links, Create uses an exclusive
// rename (Linux and macOS); where there is none either, it is ErrUnsupported.
// On FAT, a rename need not change the change time, and times are whole or even seconds:
// an object may look older than it is, by as long as it took to write it.
// FAT has no journal: a loss of power can damage the file system itself.
//
// On Windows, directories cannot be fsynced: after a loss of power, an object may be
// missing although Create or Put had returned. Put can fail with "Access is denied"
// if another process has the key open or replaces it at the same moment. The change
// time is not available, so an object's time is its modification time. If a process
// is suspended during a Create, that time is too early by the length of the
// suspension; half a fence window could hide a lost claim. Use Windows only to try
// things out, and with a single writer.
package local
