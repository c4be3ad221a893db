// Package checkpoint keeps the checkpoints of stateful jobs in an object store.
//
// A [Job] is everything under one URL. Each of its tasks has one history of
// checkpoints, and each [Checkpoint] holds the offsets that the task has reached in its
// inputs, its state, and labels. A checkpoint is visible and complete, or it is not
// there at all. Once a task is claimed, its earlier owner cannot commit any more.
// docs/protocol.md argues both; package internal/history is the code.
//
// # A program that runs for long
//
// [Task.Claim] makes the program the task's [Owner]. [Owner.Resume] makes a directory
// what the latest checkpoint has, and returns the offsets to go on from. Then
// [Owner.Commit] saves the state and the offsets again and again. It sends what changed;
// sometimes it also sends unchanged data again, so that an old object that is mostly
// unneeded can be deleted. In the end [Owner.Release] gives the task up, and [Owner.Close] waits for
// what is left to be cleaned up. Package runner does all of that for a program that
// processes streams.
//
// # A program that saves once
//
// [Task.Save] claims, commits and releases in one manifest. It suits a cron job, or a
// command.
//
// # Reading
//
// Anyone may read, at any time: [Task.Latest], [Task.Get] by number or by the name of a
// savepoint, [Task.List]; then [Checkpoint.Restore] into a directory,
// [Checkpoint.FS] for a file system that fetches what is read, and [Checkpoint.Entries].
//
// The latest checkpoint, also called the current one, is that which the task goes on from:
// the last one that was committed or, after a rollback, the one to which the task was rolled
// back. The newest manifest is the last one of all: an amendment makes another manifest, and
// no checkpoint.
//
// # Care
//
// [Task.AddSavepoint], [Task.RenameSavepoint], [Task.RemoveSavepoint] and [Task.Annotate]
// change what is said of a checkpoint, and do not disturb the task's owner.
//
// [Task.Fork] makes a new task of a checkpoint, without copying data, beside the owner.
// [Task.Detach] copies the data that a fork shares, and [Task.Delete] deletes a task.
//
// What a commit's [Retention] drops is deleted behind it. [Task.Collect] deletes what
// killed processes left, [Task.Prune] applies another policy once, [Task.Rollback] goes
// back to an older checkpoint, [Task.Verify] finds what is missing or damaged,
// [Task.TestRestore] shows that the latest checkpoint can be restored, and [Task.Repair]
// drops what is damaged.
//
// # Errors, and what to do after them
//
// Errors are told apart with errors.Is. Those of the store, such as
// backend.ErrPermission, pass through. An error may be two of these at once; then the
// one that stands first here decides.
//
//	error             from                    what is so                         what to do
//	ErrFenced         Commit, Check, Release  another writer has the task; this  stop processing; close the owner.
//	                                          owner will commit nothing more     Claim again only if this process
//	                                                                             is meant to have the task
//	ErrUnsettled      Commit, Check, Release, an earlier commit is in doubt;     call again; the state goes on
//	                  Resume, Checkpoint      nothing new was sent               meanwhile
//	ErrUnknown        Commit, Release         it was committed, or will be, or   call any method of the owner: it
//	                                          not                                finds out first. Acknowledge no
//	                                                                             input until then
//	ErrUnknown        Save, Prune, Rollback,  likewise                           look with Status or List before
//	                  Repair, Delete, Fork,                                      doing it again
//	                  Detach, AddSavepoint
//	                  and its kin
//	ErrConflict       Save                    another writer was first           save again if this state is still
//	                                                                             wanted
//	ErrConflict       Save, Commit            the savepoint's name is taken      choose another name
//	ErrConflict       AddSavepoint,           the name is taken, or the          choose another name, or rename
//	                  RenameSavepoint         checkpoint has another one
//	ErrChanged        Commit, Save            the state was written to while it  save from a copy or a snapshot
//	                                          was read; nothing was saved        that nobody writes to
//	ErrLost           Claim, Save, Status     manifests were deleted from        bring them back, or collect with
//	                                          outside                            Lost if they are not wanted; do
//	                                                                             not treat the task as new
//	ErrLost           Commit, Check, Release  likewise, while this owner ran; it stop processing; find out who did it
//	                                          will commit nothing more           before the task is claimed again
//	ErrCorrupt        Claim, Restore, Get     the store does not hold what was   Verify tells what; restore an
//	                                          written                            older checkpoint, or Repair
//	ErrUnsupported    Claim, Save             the store ignores conditions, or   use another store, or correct the
//	(backend)                                 what stands before it does         proxy; do not retry
//	ErrNoCheckpoint   Get, Latest, Rollback,  there is none                      if the task is new, start from the
//	                  AddSavepoint, kin                                          beginning
//	ErrGone           Restore, reads of FS    it was retired while it was read   take the latest one
//	ErrConflict       Fork, Detach            there is a task of that name, or   choose another name, or do it
//	                                          another writer was first           again
//	ErrClaimed        Save, Rollback, Repair, an owner would be fenced           stop it, or set Fence
//	                  Collect, Delete
//	ErrFileOwners     Commit, Save, Restore   owners of files were to be kept    leave FileOwners out, or run where
//	                                          and cannot be                      they can be
//	ErrHeld           Delete, Repair          forks need its data                delete them first
//	fs.ErrClosed      any                     the job or the owner was closed,   nothing; to go on, claim again
//	                                          or the owner has released
//	context's error   any                     if no error above says otherwise,  -
//	                                          nothing was committed
//	any other         Commit, Save            nothing was committed; the last    try again later; the runner does
//	                                          checkpoint stands
//	any other         Claim                   the task may be claimed, and no    claim again
//	                                          owner was returned
//	ErrNotEmpty       Restore                 the directory has something in it  set Replace, or take another one
//	ErrVersion        any that reads; with    a newer version wrote it, and may  stop; use that version
//	                  ErrFenced: Commit, ...  have the task
//	ErrInvalid        any                     what was asked for cannot be       correct the call
//	(backend)
//	any other         Restore                 the directory is what it was       try again
package checkpoint
