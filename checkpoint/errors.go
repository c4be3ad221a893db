package checkpoint

import (
	"errors"

	"github.com/holdfast-io/holdfast/checkpoint/internal/cause"
)

// The errors that a caller may want to tell apart, with errors.Is. Those of
// the store pass through: package backend names them. fs.ErrNotExist, fs.ErrPermission and
// backend.ErrInvalid are also errors of the local file system; errors.As with
// *backend.Error tells that it was the store.
var (
	// ErrNoCheckpoint means that the task, or the checkpoint asked for, does
	// not exist. A store that could not be read gives another error.
	ErrNoCheckpoint = cause.ErrNoCheckpoint

	// ErrFenced means that another writer has taken the task over. The owner that
	// gets it can commit nothing more.
	ErrFenced = cause.ErrFenced

	// ErrConflict means that somebody else was first, or that a name is taken. Unless the
	// error is also an ErrUnknown, nothing was changed.
	ErrConflict = cause.ErrConflict

	// ErrClaimed means that a task has an owner who may be alive, and who would
	// be fenced by what was asked for. Nothing was done.
	ErrClaimed = cause.ErrClaimed

	// ErrHeld means that something cannot be deleted or given up, because forks need its
	// data. The error names them.
	ErrHeld = cause.ErrHeld

	// ErrUnknown means that the store did not say whether a manifest was written: it
	// may have been, or may yet be. An owner finds out with its next call.
	ErrUnknown = cause.ErrUnknown

	// ErrUnsettled means that an earlier commit of the owner is still in doubt, so that
	// nothing new was sent. Call again: the owner then tries once more to find out the
	// outcome of the earlier commit. ErrUnsettled is not an ErrUnknown.
	ErrUnsettled = errors.New("an earlier commit is still in doubt, and nothing new was sent")

	// ErrChanged means that a state changed while it was saved. The error names the
	// file.
	ErrChanged = errors.New("changed while it was saved")

	// ErrFileOwners means that the owners of files were to be saved but are not known, or
	// were to be restored but cannot be set. Nothing was saved or restored.
	ErrFileOwners = errors.New("owners cannot be kept")

	// ErrGone means that a checkpoint was retired by the task's retention
	// while it was read. A newer one exists.
	ErrGone = cause.ErrGone

	// ErrCorrupt means that what the store holds is not what was written.
	ErrCorrupt = cause.ErrCorrupt

	// ErrLost means that someone deleted manifests that this library never deletes. What
	// they had committed is not in the history any more. ErrLost is also an ErrCorrupt.
	ErrLost = cause.ErrLost

	// ErrVersion means that an object was written by a newer version of this library.
	ErrVersion = cause.ErrVersion
)
