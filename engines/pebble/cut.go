package pebble

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// Cut fixes the state of the database as it is now: see the package's
// documentation. Nothing may be written while it runs, and anything after.
//
// The source is read by one commit, which waits until the cut is on disk; what
// goes wrong by then is that commit's error, and names the database's directory.
// remove gives back the cut's directory, and the disk space of tables that the
// database has replaced meanwhile. It must be called once the commit has
// returned, whatever it returned. Until then, Cut fails with [ErrBusy]. Of a disk that
// hangs, remove waits for no longer than 5 s; the cut is then removed when the disk
// has answered.
//
// ctx governs the cut until it is on disk, which is after Cut has returned: give it the
// context of the commit. When it ends before that, the commit fails with its cause. When
// it ends before Cut has returned, Cut returns its cause; nothing is left to remove.
func (e *Engine) Cut(ctx context.Context) (src checkpoint.Source, remove func() error, err error) {
	if ctx.Err() != nil {
		return src, nil, e.explain(context.Cause(ctx))
	}
	c, err := e.begin()
	if err != nil {
		return src, nil, e.explain(err)
	}
	unlink := context.AfterFunc(ctx, func() { c.cancel(context.Cause(ctx)) })
	go func() {
		defer unlink()
		c.run()
	}()
	select {
	case err = <-c.begun:
	case <-ctx.Done():
		c.abandon(context.Cause(ctx))
		return src, nil, e.explain(context.Cause(ctx))
	}
	if err != nil {
		return src, nil, errors.Join(err, c.remove())
	}
	return checkpoint.FS(tree{c}).WriteOnce("*.sst", "*.blob"), c.remove, nil
}

// prepareTime bounds how long Prepare waits. A flush of a memtable, whose default is 4
// MiB, takes some tens of milliseconds.
const prepareTime = time.Second

// Prepare waits until Pebble's flush that is under way has ended, because a Cut
// would have to wait for that. It is called before the loop pauses. It is no error if
// that takes long: Cut then waits for the rest.
func (e *Engine) Prepare(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	if err := e.gate.waitIdle(short); err != nil && ctx.Err() != nil {
		return e.explain(err)
	}
	return nil
}

func (e *Engine) explain(err error) error {
	return fmt.Errorf("cutting the database in %s: %w", e.dir, err)
}

// A cut is made by a goroutine of its own.
type cut struct {
	e      *Engine
	dir    string
	ctx    context.Context // ends when nobody needs the cut any more
	cancel context.CancelCauseFunc
	remove func() error

	begun chan error    // gives nil when the state is fixed, or why it could not be
	done  chan struct{} // closed when the cut is on disk, or has failed
	root  *os.Root      // of dir, if err is nil; set when done
	err   error         // set when done

	abandoned, finished bool // guarded by e.mu
}

func newCut(e *Engine) *cut {
	c := &cut{
		e:     e,
		dir:   filepath.Join(e.cuts, cutPrefix+strings.ToLower(rand.Text())), // never the name of another process's
		begun: make(chan error, 1),
		done:  make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.remove = sync.OnceValue(func() error {
		c.cancel(errRemoved)
		select {
		case <-c.done:
			return c.drop()
		case <-time.After(slowDisk):
			c.abandon(errRemoved)
			return nil
		}
	})
	return c
}

// run makes the cut, and removes it if it was abandoned meanwhile.
func (c *cut) run() {
	defer close(c.done)
	c.err = c.make()
	if c.err != nil {
		c.err = c.e.explain(c.err)
		select {
		case c.begun <- c.err: // unless the caller was told that it has begun
		default:
		}
	}
	c.e.mu.Lock()
	c.finished = true
	abandoned := c.abandoned
	c.e.mu.Unlock()
	if abandoned {
		c.discard()
	}
}

func (c *cut) make() (err error) {
	defer func() { err = errors.Join(err, wasClosed(recover())) }()
	flushed, err := c.fix()
	if err != nil {
		return err
	}
	c.begun <- nil
	if err := c.write(flushed); err != nil {
		return err
	}
	c.root, err = os.OpenRoot(c.dir)
	return err
}

// wasClosed returns an error if Pebble has panicked because the host has closed the database by
// itself. It hands any other panic on.
func wasClosed(panicked any) error {
	if panicked == nil {
		return nil
	}
	if err, ok := panicked.(error); ok && errors.Is(err, pebbledb.ErrClosed) {
		return fmt.Errorf("the database was closed by DB.Close; close it by the engine's Close: %w", err)
	}
	panic(panicked)
}

// fix returns when the flush of all that was written has begun. The next flush
// is held back from then on.
func (c *cut) fix() (flushed <-chan struct{}, err error) {
	c.e.gate.watch()
	flushed, err = c.e.DB.AsyncFlush()
	if err == nil {
		err = c.e.gate.waitBegun(c.ctx, flushed, c.memtables)
	}
	if err != nil {
		c.e.gate.open()
		return nil, err
	}
	c.e.gate.close()
	return flushed, nil
}

// memtables returns how many memtables wait for a flush or are being flushed.
func (c *cut) memtables() int { return int(c.e.DB.Metrics().MemTable.Count) - 1 }

// write waits for the flush and makes the cut's directory.
func (c *cut) write(flushed <-chan struct{}) error {
	defer c.e.gate.open()
	if err := c.e.gate.waitFlushed(c.ctx, flushed); err != nil {
		return err
	}
	if err := c.e.DB.Checkpoint(c.dir); err != nil {
		return err
	}
	return c.e.gate.broken()
}

// stop gives the cut up if it is not on disk yet, and waits until it is made or
// has failed.
func (c *cut) stop(cause error) {
	c.cancel(cause)
	<-c.done
}

// abandon removes a cut of which the caller will hear nothing more. It does not
// wait for calls of Pebble's that nothing can interrupt.
func (c *cut) abandon(cause error) {
	c.cancel(cause)
	c.e.mu.Lock()
	c.abandoned = true
	finished := c.finished
	c.e.mu.Unlock()
	if finished {
		c.discard()
	}
}

// discard removes an abandoned cut.
func (c *cut) discard() {
	if err := c.drop(); err != nil {
		c.e.mu.Lock()
		defer c.e.mu.Unlock()
		c.e.left = errors.Join(c.e.left, err)
	}
}

var errRemoved = errors.New("the cut was removed before its commit")

// drop removes what there is of a cut that is made or has failed, and gives its
// place back.
func (c *cut) drop() error {
	var err error
	if c.root != nil {
		err = c.root.Close()
	}
	err = errors.Join(err, os.RemoveAll(c.dir))
	c.e.end()
	if err != nil {
		return fmt.Errorf("removing a cut of the database in %s: %w; the next Open of it tries again", c.e.dir, err)
	}
	return nil
}

func (c *cut) isDone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// tree is a cut's files, which whoever opens one waits for.
type tree struct{ *cut }

func (t tree) Open(name string) (fs.File, error) {
	select {
	case <-t.done:
	case <-t.ctx.Done():
		if !t.isDone() { // and perhaps never: nothing interrupts what Pebble asks of a disk
			return nil, t.e.explain(context.Cause(t.ctx))
		}
	}
	if t.err != nil {
		return nil, t.err
	}
	return t.root.FS().Open(name)
}
