// Package badger takes consistent cuts of a Badger database, for checkpoints of a job that
// keeps its state in one.
//
// An [Engine] is an open database. [Engine.Cut] fixes its state at one moment by a read
// transaction, and returns a [checkpoint.Source] that is read while the job goes on. With
// package runner, runner.Engines{"": e} is the task's state.
//
// # What a cut holds
//
// What was committed to the database before Cut was called, and nothing that was committed
// after it returned: each key with its value, its user meta and the time at which it expires,
// in the order of the keys. Of a key with several versions it holds the newest. That needs the
// job's loop to stand still in between.
//
// It is not Badger's Backup: that begins its transaction when it runs, which is beside the
// loop, and writes its lists of keys in an order by chance, so that nothing would stay where
// it was.
//
// # The pause
//
// Beginning a read transaction takes microseconds, whatever the size of the database.
//
// # What a commit reads and sends
//
// It reads the whole database, and sends those chunks, of about 16 KiB, in which a record was
// changed, added or removed.
//
// # A restore
//
// A checkpoint has no Badger files but one file of records. [Open] loads it into a new
// database, in a directory of its own, whose content does not outlive the process.
//
// # What must not be done
//
// Badger's MergeOperator: what was added to a key is in versions of it until Badger merges
// them, and a cut holds the newest version alone. Read the value, add to it, and set it.
//
// Options.EncryptionKey, which [Open] refuses: a checkpoint holds the records as they are.
package badger
