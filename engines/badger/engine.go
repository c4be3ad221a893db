package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/holdfast-io/holdfast/engines/internal/restored"
	"github.com/holdfast-io/holdfast/engines/internal/slot"
	"github.com/holdfast-io/holdfast/internal/filelock"
)

// File is the name of the records in the directory of the state, and in a checkpoint.
const File = "state.badger"

// An Engine is an open database of which cuts can be taken. It is what package runner
// calls an Engine. Its methods may be called from several goroutines.
type Engine struct {
	// DB is the database, to read and to write. Close closes it.
	DB *badgerdb.DB

	dir  string
	slot slot.Slot
	root *os.Root       // which the database's directory is in
	lock *filelock.Lock // nil where there are no locks
}

// Errors of [Engine.Cut]. ErrClosed is also that of a commit whose cut was open when the
// engine was closed.
var (
	ErrClosed = slot.ErrClosed
	ErrBusy   = slot.ErrBusy
)

// Open makes a database in the directory db, and loads the records in dir, which comes from
// the owner's Resume, into it. If the job has no checkpoint, dir is empty or absent. What is in
// db is removed first, unless an engine has it open: give it a directory below the runner's
// Restored.Cuts. Neither of the two
// may be in the other.
//
// Of opts, Dir and ValueDir are set to db, and SyncWrites is taken for false, because a process
// that died goes back to its newest checkpoint. Options with which a database cannot be written
// to or keeps nothing on disk (ReadOnly, InMemory) are refused, and so is EncryptionKey, because a
// checkpoint would hold the records as plain text. Begin with badger.DefaultOptions("").
func Open(dir, db string, opts badgerdb.Options) (*Engine, error) {
	switch {
	case dir == "" || db == "":
		return nil, errors.New("the state's directory and that of the database must have names")
	case opts.ReadOnly || opts.InMemory:
		return nil, fmt.Errorf("the database in %s: badger.Options.ReadOnly or InMemory is set; leave them unset", db)
	case len(opts.EncryptionKey) > 0:
		return nil, fmt.Errorf("the database in %s: badger.Options.EncryptionKey is set, and checkpoints are not encrypted by it; leave it unset, and encrypt in the store", db)
	}
	if err := apart(dir, db); err != nil {
		return nil, err
	}
	holds, err := restored.Holds(dir, File)
	if err != nil {
		return nil, err
	}
	e := &Engine{dir: dir}
	if err := e.open(db, opts, holds); err != nil {
		return nil, errors.Join(err, e.release())
	}
	return e, nil
}

// open makes the database, and loads the state into it, if there is one.
func (e *Engine) open(db string, opts badgerdb.Options, load bool) (err error) {
	if err := e.take(db); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(db), os.MkdirAll(db, 0o777)); err != nil {
		return err
	}
	opts.Dir, opts.ValueDir, opts.SyncWrites = db, db, false
	if e.DB, err = badgerdb.Open(opts); err != nil {
		return fmt.Errorf("opening the database in %s: %w", db, err)
	}
	if !load {
		return nil // the state is new
	}
	return e.load()
}

// take locks the database's directory, before anything in it is removed: someone may have the
// database open.
func (e *Engine) take(db string) (err error) {
	parent, name := filepath.Split(filepath.Clean(db))
	if parent == "" {
		parent = "."
	}
	if err := os.MkdirAll(parent, 0o777); err != nil {
		return err
	}
	if e.root, err = os.OpenRoot(parent); err != nil {
		return err
	}
	e.lock, err = filelock.TryLock(e.root, name+".lock", 0o600)
	switch {
	case errors.Is(err, filelock.ErrHeld):
		return fmt.Errorf("the database in %s is open; give each engine a directory of its own", db)
	case errors.Is(err, errors.ErrUnsupported):
		return nil
	}
	return err
}

// release gives back what open took.
func (e *Engine) release() (err error) {
	if e.DB != nil {
		err = e.DB.Close()
	}
	if e.lock != nil {
		err = errors.Join(err, e.lock.Remove())
	}
	if e.root != nil {
		err = errors.Join(err, e.root.Close())
	}
	e.lock, e.root = nil, nil
	return err
}

// apart refuses a database in the state's directory, and the other way round.
func apart(dir, db string) error {
	a, err := resolve(dir)
	if err != nil {
		return err
	}
	b, err := resolve(db)
	if err != nil {
		return err
	}
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		if rel, err := filepath.Rel(pair[0], pair[1]); err == nil && filepath.IsLocal(rel) {
			return fmt.Errorf("the state's directory %s and that of the database, %s, must be apart; put them side by side", dir, db)
		}
	}
	return nil
}

// resolve returns the path without symbolic links, or as it is if nothing is there: then there is
// nothing to remove either.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	switch real, err := filepath.EvalSymlinks(abs); {
	case errors.Is(err, fs.ErrNotExist):
		return abs, nil
	default:
		return real, err
	}
}

// load reads the records of a checkpoint.
func (e *Engine) load() (err error) {
	f, err := os.Open(filepath.Join(e.dir, File))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := readAll(f, e.DB); err != nil {
		return fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return nil
}

// Close closes the database. A cut that is in use is given up, and its commit fails.
func (e *Engine) Close() error { return errors.Join(e.slot.Close(), e.release()) }
