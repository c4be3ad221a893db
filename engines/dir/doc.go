// Package dir takes consistent cuts of a directory of files that some program writes to,
// for checkpoints of a job whose state is that directory.
//
// A cut is a copy of the directory, in a directory beside it. The copy stays from one cut
// to the next, and a file that did not change since is not copied again; on file systems
// that can (Btrfs, XFS), what is copied shares its blocks with the original. From the
// copy, a commit reads what is new, while the program goes on.
//
// There are two ways to a consistent cut. They differ in what the program promises:
//
//   - Files may be copied at any time, because each is written beside its place and put
//     there by a rename, and no two of them must be of one moment. That is the zero
//     [Options]. A file that is written to while it is copied is copied again.
//   - The program stands still while [Options.Still] runs: it is stopped, or was asked to
//     write all it has and wait. Most of the copying is done before that; what stands still
//     waits only for what changed last.
//
// A file that is written in place, or two files that belong together, need the second one:
// a copy of an SQLite database that is being written to is torn.
//
// # When a file is known to be unchanged
//
// By the rules of docs/protocol.md, "What a save trusts": its size, times and inode are what
// they were when it was copied, on a file system where every write is sure to change them.
// Elsewhere (a tmpfs, a container's own layers, NFS) every cut copies every file.
//
// A hard link would be no copy of a file that is written in place. Files are linked only if
// their names match [Options.Immutable].
package dir
