// Package slot has the life of a cut that is written to whoever reads it: one at a time,
// by a goroutine that ends with the commit, the context or the engine.
package slot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// ErrClosed is what Cut says after Close, and a commit of a cut that was open by then.
var ErrClosed = errors.New("the engine is closed")

// ErrBusy is what Cut says while the cut before was not removed.
var ErrBusy = errors.New("the cut before is still in use: remove it when its commit has returned, then cut again")

var errRemoved = errors.New("the cut was removed before its commit")

// A Slot is a place for one cut. Its methods may be called from several goroutines.
type Slot struct {
	mu     sync.Mutex
	last   *cut // which was not removed yet
	closed bool
}

// A Fixed is a state that does not change until it is freed.
type Fixed struct {
	Write func(w io.Writer) error // writes it, once, and ends early if w fails
	Free  func() error            // is called when Write has ended; nil for nothing to do
}

// Cut fixes a state by fix, and returns it as a file of that name, and what gives the slot
// back. When ctx ends before that, whoever reads the file gets its cause.
func (s *Slot) Cut(ctx context.Context, file string, fix func() (Fixed, error)) (src checkpoint.Source, remove func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return src, nil, ErrClosed
	case s.last != nil:
		return src, nil, ErrBusy
	case ctx.Err() != nil:
		return src, nil, context.Cause(ctx)
	}
	state, err := fix()
	if err != nil {
		return src, nil, err
	}
	c := begin(ctx, state)
	s.last = c
	return checkpoint.Stream(file, c.reader), func() error {
		err := c.end(errRemoved)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.last == c {
			s.last = nil
		}
		return err
	}, nil
}

// Close ends the cut that is in use, if there is one. There is none after it.
func (s *Slot) Close() error {
	s.mu.Lock()
	last := s.last
	s.closed = true
	s.mu.Unlock()
	if last == nil {
		return nil
	}
	return last.end(ErrClosed)
}

// A cut is written by a goroutine of its own.
type cut struct {
	state   Fixed
	reader  *io.PipeReader
	writer  *io.PipeWriter
	unlink  func() bool   // from the context
	written chan struct{} // closed when the goroutine has ended
	once    sync.Once
	err     error // of Free; for once
}

func begin(ctx context.Context, state Fixed) *cut {
	c := &cut{state: state, written: make(chan struct{})}
	c.reader, c.writer = io.Pipe()
	c.unlink = context.AfterFunc(ctx, func() { c.stop(context.Cause(ctx)) })
	go func() {
		defer close(c.written)
		err := c.write()
		if ctx.Err() != nil { // what was written to its end counts as little
			err = context.Cause(ctx)
		}
		c.stop(err)
	}()
	return c
}

// write writes the state. A panic of the host's code, which encodes a value, is the commit's
// error: this goroutine is not the host's, who could not recover from it.
func (c *cut) write() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("writing the state: panic: %v\n%s", p, debug.Stack())
		}
	}()
	return c.state.Write(c.writer)
}

// stop ends the file, with an error or, for nil, at its end; only the first call counts.
func (c *cut) stop(err error) { _ = c.writer.CloseWithError(err) } // it never fails

// end stops the goroutine, waits for it, and frees the state: once, however often it is
// called.
func (c *cut) end(cause error) error {
	c.once.Do(func() {
		c.unlink()
		c.stop(cause)
		<-c.written
		if c.state.Free != nil {
			c.err = c.state.Free()
		}
	})
	return c.err
}
