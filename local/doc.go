// Package local keeps objects as files in a directory, for example
// file:///var/lib/orders. Importing it registers the scheme file.
//
// # URLs
//
// A URL is file:///path, with an absolute path in which ?, # and % are escaped
// as %3F, %23 and %25. It takes no parameters.
//
// The directory is made by the first write; a handle that only reads makes
// nothing. A directory that does not exist is a store to which nothing was
// written yet: it lists as empty. But one that disappears, or is replaced,
// while a handle is open on it is ErrNoStore, and one that cannot be read is
// ErrPermission, and neither is ever taken for empty.
//
// # Layout
//
// The object "a/b/c" is the file a/b/c below the directory, whole and
// unadorned. Only regular files are objects: others are not listed, and a key
// that one of them occupies cannot be created. Symbolic links below the
// directory are never followed out of it, and never written through. Files
// whose names cannot be part of a key are not listed. An object's directories
// stay when it is deleted, since another process may be about to use them.
//
// Temporary files are in .holdfast-tmp. Each handle that writes holds a lock
// there until it is closed; what belongs to a process that died is removed by
// the next handle that writes.
//
// The store's own directory is made with mode 0700, since checkpoints hold
// what their job knows. Where that is too narrow, make the directory first:
// below it the umask decides.
//
// # Durability
//
// Create and Put write a temporary file, fsync it, give it its name by link(2)
// or rename(2), and fsync the directory. They also fsync, once per handle, the
// parent of every directory on the way to the object, even of those that they
// found: another process may have made them a moment ago. A loss of power may
// undo a Delete, but nothing else.
//
// An object can be seen before its name is durable. So Delete first fsyncs the
// directories in which its handle has found objects since it last did so: what
// is deleted for the sake of an object does not go before that is there to stay.
//
// An fsync that is under way cannot be interrupted: a context that ends is
// noticed before it, after it and between megabytes of data.
//
// # Time
//
// An object's time is its inode's change time (ctime), which the kernel sets
// when the object gets its name and which no program can set. Create and Put
// return just that. To list may give a later time, when the file was touched
// since (chmod, a copy of the store, a temporary name that a killed process
// left to be swept): then the object passes for younger, and is kept longer.
// The clock is the machine's or, on a network file system, the file server's.
//
// # Where less is promised
//
// On NFS, one server's clients exclude each other in Create, since link(2) is
// atomic there. Whoever lists may see a new object only when its client's
// cache of the directory ends (mount with lookupcache=none or actimeo=0 to
// rule that out). Locks need a lock service: on a mount without one (nolock,
// local_lock=flock) a machine may sweep the temporary files of another
// machine's living process, whose Create or Put then fails without having
// written anything, and may be tried again.
//
// On FAT and other file systems without hard links, Create uses an exclusive
// rename (Linux and macOS); where there is none either, it is ErrUnsupported.
// FAT has no journal: a loss of power can damage the file system itself.
//
// On Windows, directories cannot be fsynced: after a loss of power an object
// may be gone whose Create or Put had returned. Put of a key that another
// process has open or replaces at the same moment can fail with "Access is
// denied". The change time is not at hand: an object's time is its modification
// time, which is too early by as long as a process is suspended in the midst of
// a Create; a suspension of half a fence window could hide a lost claim. Use
// Windows to try things out, and with a single writer.
package local
