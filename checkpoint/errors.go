package checkpoint

import (
	"errors"

	"github.com/holdfast-io/holdfast/checkpoint/internal/cause"
)

// The errors that a caller may want to tell apart, with errors.Is. Those of
// the store pass through: package backend names them.
var (
	// ErrNoCheckpoint means that the task, or the checkpoint asked for, does
	// not exist. It is returned only when the store could be read.
	ErrNoCheckpoint = cause.ErrNoCheckpoint

	// ErrFenced means that another writer has taken the task over. It is final
	// for the owner that gets it: nothing that it does will be committed.
	ErrFenced = cause.ErrFenced

	// ErrConflict means that a save lost to another one, or that the name of
	// its savepoint is taken. Nothing was committed.
	ErrConflict = cause.ErrConflict

	// ErrClaimed means that a task has an owner who may be alive, and who would
	// be fenced by what was asked for. Nothing was done.
	ErrClaimed = cause.ErrClaimed

	// ErrUnknown means that the store did not say whether a commit happened.
	// It may have, or may yet. An owner settles it before its next commit.
	ErrUnknown = cause.ErrUnknown

	// ErrUnsettled means that an earlier commit of the owner is still in doubt, so that
	// this one was not sent. Call again: the outcome of the earlier one is found out
	// first. It is no ErrUnknown.
	ErrUnsettled = errors.New("an earlier commit is still in doubt, and nothing new was sent")

	// ErrChanged means that a state changed while it was saved. The error names the
	// file.
	ErrChanged = errors.New("changed while it was saved")

	// ErrOwners means that the owners of files, which are to be saved or restored,
	// are not known or cannot be set. Nothing was saved or restored.
	ErrOwners = errors.New("owners cannot be kept")

	// ErrGone means that a checkpoint was retired by the task's retention
	// while it was read. A newer one exists.
	ErrGone = cause.ErrGone

	// ErrCorrupt means that what the store holds is not what was written.
	ErrCorrupt = cause.ErrCorrupt

	// ErrLost means that manifests were deleted that nobody who keeps to the protocol
	// deletes: what they had committed is not in the history any more. It is an
	// ErrCorrupt.
	ErrLost = cause.ErrLost

	// ErrVersion means that a newer version of this library wrote it.
	ErrVersion = cause.ErrVersion
)
