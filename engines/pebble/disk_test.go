package pebble

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A disk is the local one, which may be slow or full where tables are concerned.
type disk struct {
	vfs.FS
	mu   sync.Mutex
	slow chan struct{} // tables are made when it is closed
	full bool
	hung chan struct{} // links are made when it is closed; each that waits sends to asks
	asks chan struct{} // has an element for each table that is asked for
}

func newDisk() *disk { return &disk{FS: vfs.Default, asks: make(chan struct{}, 1000)} }

func (d *disk) Unwrap() vfs.FS { return d.FS }

func (d *disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if filepath.Ext(name) == ".sst" {
		d.mu.Lock()
		slow, full := d.slow, d.full
		d.mu.Unlock()
		select {
		case d.asks <- struct{}{}:
		default:
		}
		if slow != nil {
			<-slow
		}
		if full {
			return nil, syscall.ENOSPC
		}
	}
	return d.FS.Create(name, category)
}

func (d *disk) Link(old, new string) error {
	d.mu.Lock()
	hung := d.hung
	d.mu.Unlock()
	if hung != nil {
		d.asks <- struct{}{}
		<-hung
	}
	return d.FS.Link(old, new)
}

func (d *disk) set(slow chan struct{}, full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow, d.full = slow, full
}

// A cut of a state that cannot be flushed fails, and the next one holds all.
func TestDiskFull(t *testing.T) {
	d, p, opts := newDisk(), newPlace(t), small()
	opts.FS, opts.Logger = d, mute{}
	e := mustOpen(t, p, opts)
	owner := mustClaim(t, "mem://"+t.Name())
	mustWrite(t, e, "a", "1")
	d.set(nil, true)
	src, remove, err := e.Cut(t.Context())
	if err == nil {
		_, err = owner.Commit(t.Context(), checkpoint.Snapshot{State: src})
		if err := remove(); err != nil {
			t.Error(err)
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v; want ENOSPC", err)
	}
	if want := "cutting the database in " + p.dir + ": "; err != nil && !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v; want it to begin with %s", err, want)
	}
	d.set(nil, false)
	if err := e.DB.Flush(); err != nil { // the attempt that is under way fails as well
		t.Fatal(err)
	}
	mustWrite(t, e, "b", "2")
	src, remove = mustCut(t, e)
	c := mustCommit(t, owner, src)
	if err := remove(); err != nil {
		t.Error(err)
	}
	wantState(t, mustRestore(t, c), map[string]string{"a": "1", "b": "2"})
}

// mute keeps nothing: Pebble tries a failed flush again, and logs each time.
type mute struct{ quiet }

func (mute) Errorf(string, ...any) {}

// A flush that began before the cut, and does not end, holds the cut up. Its
// caller need not wait.
func TestSlowDisk(t *testing.T) {
	d, p, opts := newDisk(), newPlace(t), small()
	opts.FS = d
	e := mustOpen(t, p, opts)
	mustWrite(t, e, "a", "1")
	slow := make(chan struct{})
	d.set(slow, false)
	if _, err := e.DB.AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	<-d.asks // it has begun
	mustWrite(t, e, "b", "2")
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("it is over")
	failed := make(chan error)
	go func() {
		_, _, err := e.Cut(ctx)
		failed <- err
	}()
	cancel(over)
	if err := <-failed; !errors.Is(err, over) {
		t.Errorf("%v; want the context's cause", err)
	}
	d.set(nil, false)
	close(slow)
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	wantNoCuts(t, p)
}

// When the context of a commit ends, it does not wait for the disk, and neither does
// whoever removes the cut; the next cut is taken when the disk has answered.
func TestCommitEndsWithItsContext(t *testing.T) {
	for name, test := range map[string]struct {
		hang func(d *disk, hung chan struct{})
		asks int // of the disk, until it hangs
	}{
		"a flush that hangs": {func(d *disk, hung chan struct{}) { d.slow = hung }, 1},
		"a link that hangs":  {func(d *disk, hung chan struct{}) { d.hung = hung }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			d, p, opts := newDisk(), newPlace(t), small()
			opts.FS = d
			e := mustOpen(t, p, opts)
			owner := mustClaim(t, "mem://"+t.Name())
			mustWrite(t, e, "a", "1")
			hung := make(chan struct{})
			d.mu.Lock()
			test.hang(d, hung)
			d.mu.Unlock()
			ctx, cancel := context.WithCancelCause(t.Context())
			over := errors.New("it is over")
			src, remove, err := e.Cut(ctx)
			if err != nil {
				t.Fatal(err)
			}
			committed := make(chan error)
			go func() {
				_, err := owner.Commit(ctx, checkpoint.Snapshot{State: src})
				committed <- errors.Join(err, remove())
			}()
			for range test.asks {
				<-d.asks
			}
			cancel(over)
			select {
			case err := <-committed:
				if !errors.Is(err, over) && !errors.Is(err, context.Canceled) {
					t.Errorf("%v; want the context's end", err)
				}
			case <-time.After(time.Minute):
				close(hung)
				t.Fatal("the commit waits for the disk")
			}
			if name == "a link that hangs" {
				if _, _, err := e.Cut(t.Context()); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "disk") {
					t.Errorf("a cut while the one before hangs: %v", err)
				}
			}
			close(hung)
			for { // until the disk has answered
				src, remove, err = e.Cut(t.Context())
				if !errors.Is(err, ErrBusy) {
					break
				}
				time.Sleep(time.Millisecond)
			}
			if err != nil {
				t.Fatal(err)
			}
			c := mustCommit(t, owner, src)
			if err := remove(); err != nil {
				t.Error(err)
			}
			wantState(t, mustRestore(t, c), map[string]string{"a": "1"})
		})
	}
}

// soon is for how long a test looks whether something happens that must not.
const soon = 100 * time.Millisecond

// A cut is made when the flush of all that was written has ended, and not before.
func TestCutWaitsForItsFlush(t *testing.T) {
	d, opts := newDisk(), small()
	opts.FS = d
	e := mustOpen(t, newPlace(t), opts)
	mustWrite(t, e, "a", "1")
	slow := make(chan struct{})
	d.set(slow, false)
	src, remove := mustCut(t, e)
	select {
	case <-e.last.done:
		t.Error("the cut is made, and its flush is not")
	case <-time.After(soon):
	}
	close(slow)
	c := mustCommit(t, mustClaim(t, "mem://"+t.Name()), src)
	if err := remove(); err != nil {
		t.Error(err)
	}
	wantState(t, mustRestore(t, c), map[string]string{"a": "1"})
}

// Tables that are ingested while the cut's directory is written fail it.
func TestIngestionWhileACutIsWritten(t *testing.T) {
	d, opts, hung := newDisk(), small(), make(chan struct{})
	opts.FS = d
	e := mustOpen(t, newPlace(t), opts)
	mustWrite(t, e, "a", "1")
	d.hung = hung
	src, remove := mustCut(t, e)
	<-d.asks // its table
	<-d.asks // its link
	e.gate.ingested()
	close(hung)
	_, err := mustClaim(t, "mem://"+t.Name()).Commit(t.Context(), checkpoint.Snapshot{State: src})
	if !errors.Is(err, errIngested) {
		t.Errorf("%v; want errIngested", err)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
}

// The database is closed when the cut that is being made has come to its end.
func TestCloseWaitsForACut(t *testing.T) {
	d, p, opts, hung := newDisk(), newPlace(t), small(), make(chan struct{})
	opts.FS = d
	e := mustOpen(t, p, opts)
	mustWrite(t, e, "a", "1")
	d.hung = hung
	_, remove := mustCut(t, e)
	<-d.asks // its table
	<-d.asks // its link
	closed := make(chan error, 1)
	go func() { closed <- e.Close() }()
	select {
	case err := <-closed:
		t.Errorf("it is closed (%v), and a cut is being made", err)
		closed <- nil
	case <-time.After(soon):
	}
	close(hung)
	if err := errors.Join(<-closed, remove()); err != nil {
		t.Error(err)
	}
	wantNoCuts(t, p)
}

// Whoever closes the engine while a cut is made does not wait for the disk's sake
// alone: the commit fails, and says why.
func TestCloseWhileACutIsMade(t *testing.T) {
	d, p, opts := newDisk(), newPlace(t), small()
	opts.FS = d
	e := mustOpen(t, p, opts)
	mustWrite(t, e, "a", "1")
	slow := make(chan struct{})
	d.set(slow, false)
	src, remove := mustCut(t, e)
	closed := make(chan error)
	go func() { closed <- e.Close() }()
	_, err := mustClaim(t, "mem://"+t.Name()).Commit(t.Context(), checkpoint.Snapshot{State: src})
	if !errors.Is(err, ErrClosed) {
		t.Errorf("%v; want ErrClosed", err)
	}
	close(slow)
	if err := errors.Join(<-closed, remove()); err != nil {
		t.Error(err)
	}
	wantNoCuts(t, p)
}
