package pebble

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/engines/internal/restored"
	"github.com/holdfast-io/holdfast/internal/filelock"
)

// An Engine is an open database of which cuts can be taken. Its methods may be
// called from several goroutines.
type Engine struct {
	// DB is the database, to read and to write. Close closes it.
	DB *pebbledb.DB

	dir, cuts string
	gate      *gate
	health    io.Closer // of the file system, if it is Pebble's own
	root      *os.Root  // of cuts
	lock      *filelock.Lock

	mu     sync.Mutex
	last   *cut  // which was not removed yet
	left   error // why abandoned cuts could not be removed
	closed bool
}

// ErrClosed is what Cut says after Close.
var ErrClosed = errors.New("the engine is closed")

// ErrBusy is what Cut says while the cut before was not removed.
var ErrBusy = errors.New("the cut before is still in use")

// What is to be done when it is.
var (
	errNotRemoved = fmt.Errorf("%w: remove it when its commit has returned, then cut again", ErrBusy)
	errAbandoned  = fmt.Errorf("%w by the disk, though it was given up: it is removed when the disk has answered; cut again then", ErrBusy)
)

// manifestSize is the default of Options.MaxManifestFileSize, in bytes. Every
// cut copies Pebble's MANIFEST, and every commit reads it. Pebble's own default
// is 128 MiB.
const manifestSize = 1 << 20

// memtables is the default of Options.MemTableStopWritesThreshold: how many
// memtables there may be before writes wait. Pebble's own default of 2 makes the
// loop wait as soon as it has filled one while a cut is being made, because the
// cut's own memtable counts as full.
const memtables = 4

// slowDisk is how long an operation on a file takes that the host's listener
// hears of: Pebble's default.
const slowDisk = 5 * time.Second

// Open opens the database in dir, as pebble.Open does. If the job has a
// checkpoint, dir must come from the owner's Resume; otherwise it may be empty or
// absent. Files of anything but Pebble are refused: they are the state of another engine. Cuts are made in the directory cuts, which belongs to this database
// alone, is on the same file system, and outside dir; what a process that died
// has left there is removed.
//
// Of opts, which may be nil and is not changed, DisableWAL is taken for set,
// MaxManifestFileSize is 1 MiB by default, and MemTableStopWritesThreshold 4.
// Options that keep a part of the
// database outside dir are refused, because a cut would lack that part: WALDir,
// WALFailover, WALRecoveryDirs, Experimental.RemoteStorage, and an FS that is not
// on disk; so is ReadOnly.
func Open(dir string, opts *pebbledb.Options, cuts string) (*Engine, error) {
	opts = opts.Clone()
	if err := check(dir, opts, cuts); err != nil {
		return nil, err
	}
	for _, path := range []string{dir, cuts} {
		if err := os.MkdirAll(path, 0o777); err != nil {
			return nil, err
		}
	}
	if err := apart(dir, cuts); err != nil {
		return nil, err
	}
	e := &Engine{dir: dir, cuts: cuts, gate: newGate()}
	opts.DisableWAL = true
	if opts.MaxManifestFileSize == 0 {
		opts.MaxManifestFileSize = manifestSize
	}
	if opts.MemTableStopWritesThreshold == 0 {
		opts.MemTableStopWritesThreshold = memtables
	}
	listenAlso(opts, e.gate.listener())
	if err := e.open(opts); err != nil {
		return nil, errors.Join(err, e.release())
	}
	return e, nil
}

func (e *Engine) open(opts *pebbledb.Options) (err error) {
	if e.root, err = os.OpenRoot(e.cuts); err != nil {
		return err
	}
	e.lock, err = filelock.TryLock(e.root, "LOCK", 0o600)
	if errors.Is(err, filelock.ErrHeld) {
		return fmt.Errorf("%s is used for the cuts of a database that is open; give each database a directory for cuts of its own", e.cuts)
	}
	if err != nil {
		return err
	}
	if opts.FS == nil {
		// Pebble does the same, but leaves a goroutine behind if it then fails.
		opts.FS, e.health = vfs.WithDiskHealthChecks(vfs.Default, slowDisk, nil, opts.EventListener.DiskSlow)
	}
	opts.FS = unsynced{opts.FS}
	there, err := pebbledb.Peek(e.dir, opts.FS)
	if err == nil && !there.Exists {
		err = restored.Empty(e.dir, "a Pebble database")
	}
	if err != nil {
		return fmt.Errorf("opening the database in %s: %w", e.dir, err)
	}
	if e.DB, err = pebbledb.Open(e.dir, opts); err != nil {
		return fmt.Errorf("opening the database in %s: %w", e.dir, err)
	}
	if err := e.sweep(); err != nil {
		return err
	}
	return e.tryLink()
}

// cutPrefix begins the names of cuts. Nothing else in their directory is swept.
const cutPrefix = "cut-"

// sweep removes the cuts of an engine that was not closed.
func (e *Engine) sweep() error {
	entries, err := os.ReadDir(e.cuts)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), cutPrefix) {
			continue
		}
		if err := e.root.RemoveAll(entry.Name()); err != nil {
			return fmt.Errorf("%s holds a cut of a process that died: %w; remove it", e.cuts, err)
		}
	}
	return nil
}

// tryLink makes sure that cuts can be hard links. Pebble would copy the whole
// database otherwise, at each cut.
func (e *Engine) tryLink() error {
	link := filepath.Join(e.cuts, cutPrefix+"link")
	if err := os.Link(filepath.Join(e.dir, "LOCK"), link); err != nil {
		return fmt.Errorf("%s can hold no hard links to the files of %s: %w; choose a directory for cuts on the file system of the database", e.cuts, e.dir, err)
	}
	return os.Remove(link)
}

// Close closes the database. What was written since the last cut is dropped, and
// a cut that is still being made fails. Cuts that are there stay until their
// remove is called.
func (e *Engine) Close() error {
	e.mu.Lock()
	last := e.last
	wasClosed := e.closed
	e.closed = true
	e.mu.Unlock()
	if wasClosed {
		return nil
	}
	if last != nil {
		last.stop(ErrClosed)
	}
	e.mu.Lock()
	left := e.left
	e.mu.Unlock()
	return errors.Join(left, e.release())
}

// release gives back what open took.
func (e *Engine) release() (err error) {
	if e.DB != nil {
		if err = e.DB.Close(); err != nil {
			err = fmt.Errorf("closing the database in %s: %w", e.dir, err)
		}
	}
	if e.health != nil {
		err = errors.Join(err, e.health.Close())
	}
	if e.lock != nil {
		err = errors.Join(err, e.lock.Unlock())
	}
	if e.root != nil {
		err = errors.Join(err, e.root.Close())
	}
	return err
}

// begin takes the one place for a cut.
func (e *Engine) begin() (*cut, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return nil, ErrClosed
	case e.last != nil && e.last.abandoned:
		return nil, errAbandoned
	case e.last != nil:
		return nil, errNotRemoved
	}
	e.last = newCut(e)
	return e.last, nil
}

// end gives the place for a cut back.
func (e *Engine) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last = nil
}

// check refuses what would make cuts that lack a part of the database.
func check(dir string, opts *pebbledb.Options, cuts string) error {
	refuse := func(option, why string) error {
		return fmt.Errorf("the database in %s: pebble.Options.%s is set, %s; leave it unset", dir, option, why)
	}
	switch {
	case dir == "":
		return errors.New("the database's directory has no name")
	case cuts == "":
		return fmt.Errorf("the directory for cuts of the database in %s has no name", dir)
	case opts.ReadOnly:
		return refuse("ReadOnly", "and a database that is only read has nothing to cut")
	case opts.WALDir != "":
		return refuse("WALDir", "and an old log there would be replayed over a restored state")
	case opts.WALFailover != nil:
		return refuse("WALFailover", "and an old log there would be replayed over a restored state")
	case len(opts.WALRecoveryDirs) > 0:
		return refuse("WALRecoveryDirs", "and an old log there would be replayed over a restored state")
	case opts.Experimental.RemoteStorage != nil:
		return refuse("Experimental.RemoteStorage", "and a cut does not hold what is stored there")
	case opts.FS != nil && vfs.Root(opts.FS) != vfs.Default:
		return refuse("FS", "to a file system that is not the local disk's, where a cut cannot be read")
	}
	return nil
}

// apart refuses a directory for cuts in that of the database, which a restore
// replaces, and the other way round.
func apart(dir, cuts string) error {
	a, err := realPath(dir)
	if err != nil {
		return err
	}
	b, err := realPath(cuts)
	if err != nil {
		return err
	}
	if within(a, b) || within(b, a) {
		return fmt.Errorf("the database's directory %s and that for its cuts, %s, must be apart; put them side by side", dir, cuts)
	}
	return nil
}

func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// listenAlso has l told of opts' events after the listener that is there.
func listenAlso(opts *pebbledb.Options, l pebbledb.EventListener) {
	var first pebbledb.EventListener
	if opts.EventListener != nil {
		first = *opts.EventListener
	}
	// Pebble logs what has no listener; TeeEventListener would drop it.
	logger := opts.Logger
	if logger == nil {
		logger = pebbledb.DefaultLogger
	}
	first.EnsureDefaults(logger)
	both := pebbledb.TeeEventListener(first, l)
	opts.EventListener = &both
}
