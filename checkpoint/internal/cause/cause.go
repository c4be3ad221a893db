// Package cause holds the errors that the rooms of package checkpoint have in
// common. Package checkpoint exports them, and says there what a caller does next.
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
	ErrUnknown      = errors.New("outcome unknown")
	ErrGone         = errors.New("checkpoint is no longer retained")
	ErrCorrupt      = format.ErrCorrupt
	ErrLost         = fmt.Errorf("manifests were lost: %w", ErrCorrupt)
	ErrVersion      = format.ErrVersion
)
