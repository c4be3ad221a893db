package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/holdfast-io/holdfast/engines/internal/restored"
	"github.com/holdfast-io/holdfast/engines/internal/slot"
)

// File is the name of the database in its directory, and in a checkpoint.
const File = "state.sqlite"

// An Engine is an open database of which cuts can be taken. It is what package runner
// calls an Engine and a Preparer. Its methods may be called from several goroutines.
type Engine struct {
	// DB is the database, to read and to write. Close closes it.
	DB *sql.DB

	path string
	file *os.File // stays open as long as any connection: see the package's documentation
	slot slot.Slot

	mu    sync.Mutex
	own   *sql.Conn // for cuts alone
	inUse bool      // its transaction keeps the file as it is
	pool  *sql.DB   // of own
}

// Errors of [Engine.Cut]. ErrClosed is also that of a commit whose cut was open when the
// engine was closed.
var (
	ErrClosed = slot.ErrClosed
	ErrBusy   = slot.ErrBusy
)

// ours are the pragmas without which a cut is not consistent, or not quick.
var ours = []string{"journal_mode(WAL)", "synchronous(OFF)"}

// refused are those that a host must not set.
var refused = []string{"journal_mode", "synchronous", "locking_mode"}

// waitForLocks is how long a connection waits for the locks of others, in ms. A host may
// set another time for its own.
const waitForLocks = "5000"

// Open opens the database [File] in dir. If the job has a checkpoint, dir must come from the
// owner's Resume; otherwise it may be empty or absent.
//
// Each connection begins with the pragmas journal_mode(WAL), synchronous(OFF) and
// busy_timeout(5000), and those that are given, as "cache_size(-65536)". A host may not set
// journal_mode, synchronous or locking_mode.
func Open(dir string, pragmas ...string) (*Engine, error) {
	for _, pragma := range pragmas {
		name, _, _ := strings.Cut(pragma, "(")
		name, _, _ = strings.Cut(name, "=")
		name = name[strings.LastIndex(name, ".")+1:] // without the database's name
		if slices.Contains(refused, strings.ToLower(strings.TrimSpace(name))) {
			return nil, fmt.Errorf("the database in %s: pragma %q is given, and cuts need this one as the engine sets it; leave it out", dir, pragma)
		}
	}
	path, err := filepath.Abs(filepath.Join(dir, File))
	if err != nil {
		return nil, err
	}
	if _, err := restored.Holds(dir, File); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	e := &Engine{path: path}
	if err := e.open(pragmas); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the database %s: %w", path, err), e.release())
	}
	return e, nil
}

func (e *Engine) open(pragmas []string) (err error) {
	if e.DB, err = sql.Open("sqlite", e.url(pragmas)); err != nil {
		return err
	}
	if e.pool, err = sql.Open("sqlite", e.url(nil)); err != nil {
		return err
	}
	if e.own, err = e.pool.Conn(context.Background()); err != nil {
		return err
	}
	var mode string
	if err := e.own.QueryRowContext(context.Background(), "PRAGMA journal_mode").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("its journal mode is %s and cannot be wal; put it on a local file system", mode)
	}
	// The log is opened by the first read. Were that a wal_checkpoint, it would find the lock
	// of its own connection, and say that the log is busy.
	var tables int
	if err := e.own.QueryRowContext(context.Background(), readSchema).Scan(&tables); err != nil {
		return err
	}
	if err := e.DB.Ping(); err != nil { // the host's pragmas are tried
		return err
	}
	e.file, err = os.Open(e.path)
	return err
}

// readSchema is a statement that any database can read.
const readSchema = "SELECT count(*) FROM sqlite_schema"

// url is the database as the driver wants it.
func (e *Engine) url(pragmas []string) string {
	path := filepath.ToSlash(e.path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/...
	}
	query := url.Values{"_busy_timeout": {waitForLocks}, "_pragma": slices.Concat(ours, pragmas)}
	u := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	return u.String()
}

// Close closes the database. A cut that is in use is given up, and its commit fails.
func (e *Engine) Close() error { return errors.Join(e.slot.Close(), e.release()) }

// release gives back what open took. The file comes last: closing it drops locks.
func (e *Engine) release() (err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.DB != nil {
		err = errors.Join(err, e.DB.Close())
	}
	if e.own != nil {
		err = errors.Join(err, e.own.Close())
	}
	if e.pool != nil {
		err = errors.Join(err, e.pool.Close())
	}
	if e.file != nil {
		err = errors.Join(err, e.file.Close())
	}
	e.own, e.pool, e.file = nil, nil, nil // DB stays, and says that it is closed
	return err
}
