package bbolt

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"runtime"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/holdfast-io/holdfast/engines/internal/restored"
	"github.com/holdfast-io/holdfast/engines/internal/slot"
)

// File is the name of the database in its directory, and in a checkpoint.
const File = "state.bolt"

// An Engine is an open database of which cuts can be taken. It is what package runner
// calls an Engine. Its methods may be called from several goroutines.
type Engine struct {
	// DB is the database, to read and to write. Close closes it.
	DB *bolt.DB

	dir string

	slot slot.Slot
}

// Errors of [Engine.Cut]. ErrClosed is also that of a commit whose cut was open when the
// engine was closed.
var (
	ErrClosed = slot.ErrClosed
	ErrBusy   = slot.ErrBusy
)

// mapped is how many bytes of a file are mapped at least, where the address space allows
// it: a mapping takes no memory for what is not in the file. A database that grows beyond
// it is mapped anew, and a write waits for that until the cut is removed.
const mapped = 16 << 30

// lockTime is the default of Options.Timeout: how long Open waits for a process that has
// the file open. bbolt's own default is for ever.
const lockTime = time.Second

// Open opens the database [File] in dir, as bbolt.Open does. If the job has a checkpoint,
// dir must come from the owner's Resume; otherwise it may be empty or absent.
//
// Of opts, which may be nil and is not changed, NoSync is taken for set; Timeout is 1 s by
// default; and InitialMmapSize, on 64-bit systems other than Windows, 16 GiB or twice the
// size of the file, whichever is more. On Windows a file is as long as its mapping, so the
// default there is bbolt's. ReadOnly is refused.
func Open(dir string, opts *bolt.Options) (*Engine, error) {
	var o bolt.Options
	if opts != nil {
		o = *opts
	}
	if o.ReadOnly {
		return nil, fmt.Errorf("the database in %s: bbolt.Options.ReadOnly is set, and a database that is only read has nothing to cut; leave it unset", dir)
	}
	holds, err := restored.Holds(dir, File)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, File)
	o.NoSync = true
	if o.Timeout == 0 {
		o.Timeout = lockTime
	}
	if o.InitialMmapSize == 0 {
		if o.InitialMmapSize, err = mapSize(path, holds); err != nil {
			return nil, err
		}
	}
	db, err := bolt.Open(path, 0o666, &o)
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = fmt.Errorf("someone has it open; close it there first: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", path, err)
	}
	return &Engine{DB: db, dir: dir}, nil
}

// mapSize returns how much of a file to map, or 0 for bbolt's own choice.
func mapSize(path string, exists bool) (int, error) {
	if bits.UintSize < 64 || runtime.GOOS == "windows" {
		return 0, nil
	}
	size := int64(mapped)
	if exists {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		size = max(size, 2*info.Size())
	}
	return int(size), nil
}

// Close closes the database. A cut that is in use is given up, and its commit fails.
func (e *Engine) Close() error {
	return errors.Join(e.slot.Close(), e.DB.Close()) // bbolt waits for open transactions
}
