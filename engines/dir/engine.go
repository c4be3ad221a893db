package dir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// Options say how a directory is cut. The zero value is for files that may be copied at
// any time.
type Options struct {
	// Still calls copy while nothing writes to the directory, and returns its error. Nil
	// means that files may be copied at any time.
	Still func(ctx context.Context, copy func(context.Context) error) error

	// Immutable are patterns, by path.Match, of the names of files that are never changed
	// once they are there, nor their names given to other data. They are not copied: a cut
	// has hard links to them.
	Immutable []string

	// Exclude are patterns, by path.Match, of the names of files and directories that are
	// no part of the state. A restore does not bring them back.
	Exclude []string
}

// An Engine takes cuts of a directory. It is what package runner calls an Engine. Its
// methods may be called from several goroutines.
type Engine struct {
	dir  string
	opts Options
	copy *mirror

	mu     sync.Mutex
	inUse  bool // the copy is being made, or read by a commit
	closed bool
}

// ErrClosed is what Cut says after Close.
var ErrClosed = errors.New("the engine is closed")

// ErrBusy is what Cut says while the cut before was not removed.
var ErrBusy = errors.New("the cut before is still in use: remove it when its commit has returned, then cut again")

// Open opens the directory dir. Its copy is made in the directory cuts, which is on the
// same file system, outside dir, and belongs to this engine alone; what is there is
// removed.
func Open(dir, cuts string, opts Options) (*Engine, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	if err := apart(dir, cuts); err != nil {
		return nil, err
	}
	copied := filepath.Join(cuts, "copy")
	if err := errors.Join(removeTree(copied), removeTree(copied+".new")); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(copied, 0o700); err != nil {
		return nil, err
	}
	return &Engine{dir: dir, opts: opts, copy: newMirror(dir, copied, opts)}, nil
}

func (o *Options) check() error {
	for _, list := range [][]string{o.Immutable, o.Exclude} {
		for _, pattern := range list {
			if _, err := path.Match(pattern, ""); err != nil {
				return fmt.Errorf("pattern %q of files: %w", pattern, err)
			}
		}
	}
	return nil
}

// apart refuses a directory for cuts in that of the state, and the other way round.
func apart(dir, cuts string) error {
	a, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	b, err := filepath.Abs(cuts)
	if err != nil {
		return err
	}
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		if rel, err := filepath.Rel(pair[0], pair[1]); err == nil && filepath.IsLocal(rel) {
			return fmt.Errorf("the directory %s and that for its cuts, %s, must be apart; put them side by side", dir, cuts)
		}
	}
	return nil
}

// Cut copies what changed in the directory since the cut before. What it returns is read
// by one commit. remove must be called once that has returned, whatever it returned; until
// then Cut fails with [ErrBusy].
func (e *Engine) Cut(ctx context.Context) (src checkpoint.Source, remove func() error, err error) {
	if err := e.begin(); err != nil {
		return src, nil, fmt.Errorf("copying %s: %w", e.dir, err)
	}
	if err := e.bring(ctx); err != nil {
		e.end()
		return src, nil, fmt.Errorf("copying %s: %w", e.dir, err)
	}
	src = checkpoint.Dir(e.copy.to).Immutable(e.opts.Immutable...)
	return src, sync.OnceValue(func() error { e.end(); return nil }), nil
}

func (e *Engine) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return ErrClosed
	case e.inUse:
		return ErrBusy
	}
	e.inUse = true
	return nil
}

func (e *Engine) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inUse = false
}

// bring makes the copy what the directory is.
func (e *Engine) bring(ctx context.Context) error {
	if e.opts.Still == nil {
		return e.bringLive(ctx)
	}
	// Most of the copying comes before anything stands still.
	if err := e.copy.sync(ctx); err != nil && !errors.Is(err, errMoving) {
		return err
	}
	return e.opts.Still(ctx, e.copy.sync)
}

// How long a cut of files that may be copied at any time waits for a file that is being
// written to, and how long between attempts.
const (
	quietTime = 10 * time.Second
	firstWait = 5 * time.Millisecond
	longWait  = 500 * time.Millisecond
)

// bringLive copies until no file was written to, or removed, while it was copied.
func (e *Engine) bringLive(ctx context.Context) error {
	end := time.Now().Add(quietTime)
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		err := e.copy.sync(ctx)
		if !errors.Is(err, errMoving) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w, again and again for %v: write it beside its place and rename it, leave it out if it is no part of the state, or let the program stand still", err, quietTime)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close ends the use of the directory, which stays as it is. A cut that is in use stays
// until its remove is called.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	return nil
}
