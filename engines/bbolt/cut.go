package bbolt

import (
	"context"
	"fmt"
	"io"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/engines/internal/slot"
)

// Cut fixes the state of the database as it is now: see the package's documentation.
//
// The source is read by one commit. remove gives back the pages that the cut keeps from
// being used again. It must be called once the commit has returned, whatever it returned;
// until then, Cut fails with [ErrBusy]. When ctx ends before that, the commit fails with
// its cause.
func (e *Engine) Cut(ctx context.Context) (src checkpoint.Source, remove func() error, err error) {
	src, remove, err = e.slot.Cut(ctx, File, e.fix)
	if err != nil {
		return src, nil, fmt.Errorf("cutting the database in %s: %w", e.dir, err)
	}
	return src, remove, nil
}

// fix begins a read transaction.
func (e *Engine) fix() (slot.Fixed, error) {
	tx, err := e.DB.Begin(false)
	if err != nil {
		return slot.Fixed{}, err
	}
	write := func(w io.Writer) error {
		_, err := tx.WriteTo(w)
		return err
	}
	return slot.Fixed{Write: write, Free: tx.Rollback}, nil
}
