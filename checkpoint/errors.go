package checkpoint

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// The errors that a caller may want to tell apart, with errors.Is. Those of
// the store pass through: package backend names them.
var (
	// ErrNoCheckpoint means that the task, or the checkpoint asked for, does
	// not exist. It is returned only when the store could be read.
	ErrNoCheckpoint = errors.New("no such checkpoint")

	// ErrFenced means that another writer has taken the task over. It is final
	// for the owner that gets it: nothing that it does will be committed.
	ErrFenced = errors.New("fenced: another writer has taken the task over")

	// ErrConflict means that a save lost to another one, or that the name of
	// its savepoint is taken. Nothing was committed.
	ErrConflict = errors.New("conflict")

	// ErrClaimed means that a task has an owner who may be alive, and who would
	// be fenced by what was asked for. Nothing was done.
	ErrClaimed = errors.New("the task is claimed, and its owner, if it runs, would be fenced")

	// ErrUnknown means that the store did not say whether a commit happened.
	// It may have, or may yet. An owner settles it before its next commit.
	ErrUnknown = errors.New("outcome unknown")

	// ErrChanged means that a state changed while it was saved. The error names the
	// file.
	ErrChanged = errors.New("changed while it was saved")

	// ErrOwners means that the owners of files, which are to be saved or restored,
	// are not known or cannot be set. Nothing was saved or restored.
	ErrOwners = errors.New("owners cannot be kept")

	// ErrGone means that a checkpoint was retired by the task's retention
	// while it was read. A newer one exists.
	ErrGone = errors.New("checkpoint is no longer retained")

	// ErrCorrupt means that what the store holds is not what was written.
	ErrCorrupt = format.ErrCorrupt

	// ErrLost means that manifests were deleted that nobody who keeps to the protocol
	// deletes: what they had committed is not in the history any more. It is an
	// ErrCorrupt.
	ErrLost = fmt.Errorf("manifests were lost: %w", ErrCorrupt)

	// ErrVersion means that a newer version of this library wrote it.
	ErrVersion = format.ErrVersion
)
