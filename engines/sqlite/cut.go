package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/engines/internal/slot"
)

// Cut fixes the state of the database as it is now: see the package's documentation.
// While it runs, no other transaction may be open, be it one that reads or one that writes, and
// whenever it began: Cut waits 5 s for its end, and fails then. Rows that were not closed are a
// transaction too.
//
// The source is read by one commit. remove lets SQLite write to the database file again.
// It must be called once the commit has returned, whatever it returned; until then, Cut fails
// with [ErrBusy]. When ctx ends before that, the commit fails with its cause.
func (e *Engine) Cut(ctx context.Context) (src checkpoint.Source, remove func() error, err error) {
	src, remove, err = e.slot.Cut(ctx, File, func() (slot.Fixed, error) { return e.fix(ctx) })
	if err != nil {
		return src, nil, e.explain(err)
	}
	return src, remove, nil
}

func (e *Engine) explain(err error) error {
	return fmt.Errorf("cutting the database %s: %w", e.path, err)
}

// Prepare copies most of what the log holds to the database file, beside the loop, so that
// the next Cut has less to copy. It is called before the loop pauses.
func (e *Engine) Prepare(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.own == nil || e.inUse {
		return nil // Cut says what there is to say
	}
	if _, err := e.own.ExecContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)"); err != nil {
		return e.explain(err)
	}
	return nil
}

// Why a cut cannot be taken.
var (
	errOpen    = errors.New("another transaction is open: one that reads, such as Rows that were not closed, or one that writes; end all of them before the cut")
	errWritten = errors.New("the database was written to while it was cut; let all writers stand still")
)

func (e *Engine) fix(ctx context.Context) (slot.Fixed, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var busy, inLog, copied int
	if err := e.own.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &inLog, &copied); err != nil {
		return slot.Fixed{}, err
	}
	if busy != 0 {
		return slot.Fixed{}, errOpen
	}
	if err := e.begin(ctx); err != nil {
		return slot.Fixed{}, err
	}
	info, err := e.file.Stat()
	if err != nil {
		return slot.Fixed{}, errors.Join(err, e.rollback(ctx))
	}
	pages := io.NewSectionReader(e.file, 0, info.Size())
	write := func(w io.Writer) error {
		_, err := io.Copy(w, pages)
		return err
	}
	return slot.Fixed{Write: write, Free: e.free}, nil
}

// begin begins the transaction that keeps the database file as it is. The context must not
// end it.
func (e *Engine) begin(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if _, err := e.own.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	e.inUse = true
	// It takes its lock when it first reads.
	var tables int
	if err := e.own.QueryRowContext(ctx, readSchema).Scan(&tables); err != nil {
		return errors.Join(err, e.rollback(ctx))
	}
	log, err := os.Stat(e.path + "-wal")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return errors.Join(err, e.rollback(ctx))
	case log.Size() > 0:
		return errors.Join(errWritten, e.rollback(ctx))
	}
	return nil
}

func (e *Engine) free() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rollback(context.Background())
}

func (e *Engine) rollback(ctx context.Context) error {
	e.inUse = false
	_, err := e.own.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	return err
}
