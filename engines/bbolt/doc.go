// Package bbolt takes consistent cuts of a bbolt database, for checkpoints of a job that
// keeps its state in one.
//
// An [Engine] is an open database. [Engine.Cut] fixes its state at one moment by a read
// transaction, and returns a [checkpoint.Source] that is read while the job goes on. With
// package runner, runner.Engines{"": e} is the task's state.
//
// # What a cut holds
//
// What was committed to the database before Cut was called, and nothing that was committed
// after it returned. That needs the job's loop to stand still in between. A transaction of
// another goroutine that commits during the call is in the cut or not, but never in part.
//
// # The pause
//
// Beginning a read transaction takes microseconds, whatever the size of the database. While
// the cut is open, bbolt overwrites none of the pages that it needs: what is written goes to
// other pages, and the file grows by as much as is written until [Engine.Cut]'s remove is
// called.
//
// A bbolt file is mapped into memory. To map more of it, a write waits until no read
// transaction is open, which here means until the commit is over. So the engine maps much
// more than there is: see [Open].
//
// # What a commit reads and sends
//
// It reads the whole file, from its first page to the last one that is in use. Pages stay
// where they are, so it sends those that were written since the checkpoint before, each with
// its neighbours in a chunk of about 16 KiB.
//
// # Durability
//
// A transaction is not synced (bbolt's NoSync), because a process that died goes back to its
// newest checkpoint ([checkpoint.Owner.Resume]) and never to what the working directory holds.
// A loss of power may leave a damaged file there, which Resume replaces.
//
// When the file grows, by DB.AllocSize (16 MiB) at a time, bbolt does sync it, and that
// transaction waits for the disk. Options.NoGrowSync leaves this out; bbolt says that it is not
// safe on ext3 and ext4.
package bbolt
