package badger

import (
	"context"
	"fmt"
	"io"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/engines/internal/slot"
)

// Cut fixes the state of the database as it is now: see the package's documentation.
//
// The source is read by one commit. remove lets Badger drop the versions that the cut
// needs. It must be called once the commit has returned, whatever it returned; until then,
// Cut fails with [ErrBusy]. When ctx ends before that, the commit fails with its cause.
func (e *Engine) Cut(ctx context.Context) (src checkpoint.Source, remove func() error, err error) {
	src, remove, err = e.slot.Cut(ctx, File, e.fix)
	if err != nil {
		return src, nil, fmt.Errorf("cutting the database of %s: %w", e.dir, err)
	}
	return src, remove, nil
}

// fix begins a read transaction.
func (e *Engine) fix() (slot.Fixed, error) {
	if e.DB.IsClosed() {
		return slot.Fixed{}, ErrClosed
	}
	tx := e.DB.NewTransaction(false)
	return slot.Fixed{
		Write: func(w io.Writer) error { return writeAll(w, tx) },
		Free:  func() error { tx.Discard(); return nil },
	}, nil
}
