// Package checkpoint keeps the checkpoints of stateful jobs in an object store
// or in a directory.
//
// A [Job] is everything under one URL. Each of its tasks has one history of
// checkpoints. A checkpoint is either complete and visible or not there at all.
// When a task is claimed, its earlier owner cannot commit any more.
//
// # A program that runs for long
//
// It claims a task, goes on from the latest checkpoint, and commits now and
// then. [Task.Claim] makes it the task's [Owner] and fences every earlier one.
// [Owner.Resume] brings the state back into a directory. [Owner.Commit] saves
// the next checkpoint: offsets and state together, or nothing. At the end,
// [Owner.Release] says that no more will come, and [Owner.Close] waits for what
// runs in the background.
//
// Package runner does all of that for a program: when to commit, what to do
// about failures, and in which order to shut down.
//
// # A program that saves once
//
// [Task.Save] claims, commits and releases in one step. It fences the owner, if
// the task has one.
//
// # Reading
//
// Anyone may read at any time, without a claim: [Task.Latest], [Task.Get] and
// [Task.List] return checkpoints, [Checkpoint.Restore] writes one to a
// directory, and [Checkpoint.FS] reads single files of it without fetching the
// rest.
//
// # Care
//
// [Retention] says which checkpoints are kept. [Task.Prune] applies another
// policy once, [Task.Collect] deletes what nothing needs, [Task.Verify] finds
// what is missing or damaged, [Task.TestRestore] reads all data as a restore
// does, and [Task.Repair] drops what cannot be restored.
//
// # Errors, and what to do after them
//
// Errors are told apart with errors.Is. What a caller does next:
//
//	Commit
//	  nil              the checkpoint is durable and visible
//	  ErrFenced        another writer owns the task: stop processing, close, do not commit again
//	  ErrUnknown       this checkpoint may have been committed, or may yet be: go on; the next call settles it
//	  ErrUnsettled     an earlier commit is still in doubt, and this one was not sent: call again later
//	  ErrChanged       a file changed while it was read: take a new snapshot, call again
//	  ErrConflict      the savepoint's name is taken: choose another
//	  any other        nothing was committed, the last checkpoint stands: call again, later
//	Save
//	  ErrConflict      another writer was first, nothing was saved: save again if it is still wanted
//	  ErrUnknown       it may have been saved, or may yet be: look with Latest before saving again
//	  any other        nothing was saved
//	Claim
//	  ErrNoCheckpoint  ClaimOptions.At names no checkpoint that is kept
//	  ErrUnsupported   the store ignores conditional writes, or its clock misleads: use another store
//	  any other        the task may have been claimed, for nobody: claim it again
//	Restore, FS, Entries
//	  ErrGone          retention removed the checkpoint meanwhile: take the latest, or name a savepoint
//	  ErrCorrupt       the store does not hold what was written: Verify says what, an older checkpoint may do
//	  ErrNotEmpty      the target directory has something in it: set RestoreOptions.Replace, or choose another
//	  ErrVersion       a newer version of this library wrote it: use that
//
// ErrFenced and ErrUnknown can come together: the owner is fenced, and its last
// commit may have been made before that.
//
// docs/protocol.md says what is guaranteed and why it holds.
package checkpoint
