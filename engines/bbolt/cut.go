package bbolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	bolt "go.etcd.io/bbolt"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// Cut fixes the state of the database as it is now: see the package's documentation.
//
// The source is read by one commit. remove gives back the pages that the cut keeps from
// being used again. It must be called once the commit has returned, whatever it returned;
// until then, Cut fails with [ErrBusy]. When ctx ends before that, the commit fails with
// its cause.
func (e *Engine) Cut(ctx context.Context) (src checkpoint.Source, remove func() error, err error) {
	c, err := e.begin(ctx)
	if err != nil {
		return src, nil, fmt.Errorf("cutting the database in %s: %w", e.dir, err)
	}
	return checkpoint.Stream(File, c.pages), c.remove, nil
}

// begin takes the one place for a cut, and begins its transaction.
func (e *Engine) begin(ctx context.Context) (*cut, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return nil, ErrClosed
	case e.last != nil:
		return nil, ErrBusy
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	tx, err := e.DB.Begin(false)
	if err != nil {
		return nil, err
	}
	e.last = newCut(ctx, e, tx)
	return e.last, nil
}

// A cut is a read transaction, which a goroutine of its own writes to whoever reads pages.
type cut struct {
	pages  *io.PipeReader
	end    func(cause error) error // ends the transaction
	remove func() error
}

func newCut(ctx context.Context, e *Engine, tx *bolt.Tx) *cut {
	reader, writer := io.Pipe()
	c := &cut{pages: reader}
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, err := tx.WriteTo(writer)
		_ = writer.CloseWithError(err) // it never fails; nil is the end of the file
	}()
	unlink := context.AfterFunc(ctx, func() { _ = writer.CloseWithError(context.Cause(ctx)) })
	var once sync.Once
	var ended error
	c.end = func(cause error) error {
		once.Do(func() {
			unlink()
			_ = writer.CloseWithError(cause) // unless it has ended already; the goroutine and whoever reads end
			<-written
			ended = tx.Rollback()
		})
		return ended
	}
	c.remove = sync.OnceValue(func() error {
		err := c.end(errRemoved)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.last = nil
		return err
	})
	return c
}

var errRemoved = errors.New("the cut was removed before its commit")
