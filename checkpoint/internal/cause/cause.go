// Package cause holds the errors that package checkpoint and its internal packages share.
// Package checkpoint exports them, and documents what a caller does after each.
package cause

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// See the variables of the same names in package checkpoint.
var (
	ErrNoCheckpoint = errors.New("no such checkpoint")
	ErrFenced       = errors.New("fenced: another writer has taken the task over")
	ErrConflict     = errors.New("conflict")
	ErrClaimed      = errors.New("the task is claimed, and its owner, if it runs, would be fenced")
	ErrHeld         = errors.New("forks need its data")
	ErrUnknown      = errors.New("outcome unknown")
	ErrGone         = errors.New("checkpoint is no longer retained")
	ErrCorrupt      = format.ErrCorrupt
	ErrLost         = fmt.Errorf("manifests were lost: %w", ErrCorrupt)
	ErrVersion      = format.ErrVersion
)
