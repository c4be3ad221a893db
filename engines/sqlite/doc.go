// Package sqlite takes consistent cuts of an SQLite database (modernc.org/sqlite), for
// checkpoints of a job that keeps its state in one.
//
// An [Engine] is an open database. [Engine.Cut] fixes its state at one moment, and returns
// a [checkpoint.Source] that is read while the job goes on. With package runner,
// runner.Engines{"": e} is the task's state.
//
// # How a cut is made, and why it is consistent
//
// The database is in WAL mode: what is written goes to a second file, the log, and a
// checkpoint of SQLite's (a word of its own) copies it to the database file. Cut does two
// things while the loop stands still:
//
//  1. PRAGMA wal_checkpoint(TRUNCATE): all that was written is now in the database file,
//     and the log is empty.
//  2. It begins a read transaction. A reader that finds nothing in the log reads the
//     database file alone, and holds the lock WAL_READ_LOCK(0), which says so. SQLite copies
//     nothing to the database file while anybody holds that lock, whoever asks for it, be it
//     another connection or another process.
//
// So the database file is the state of that moment, and stays as it is, until the transaction
// ends with the cut. What the loop writes meanwhile is in the log. Cut makes sure that the
// log is still empty when the transaction has begun: a reader that finds something in it holds
// another lock, which does not keep the file as it is.
//
// The file is read by a descriptor that stays open as long as the engine: when a process
// closes any descriptor of a file, POSIX drops all its locks on it, those of SQLite too.
//
// # The pause
//
// It is the copying of what the log holds. [Engine.Prepare], which the runner calls before
// each cut, does most of that beside the loop. Nothing waits for the disk: see below.
//
// # What a commit reads and sends
//
// It reads the database file. Pages stay where they are, so it sends those that were written
// since the checkpoint before, each with its neighbours in a chunk of about 16 KiB.
//
// # Durability
//
// Nothing is synced (PRAGMA synchronous = OFF), because a process that died goes back to its
// newest checkpoint ([checkpoint.Owner.Resume]) and never to what the working directory holds.
package sqlite
