package pebble

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/remote"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// wantNoCuts makes sure that the directory for cuts holds its lock alone.
func wantNoCuts(t testing.TB, p place) {
	t.Helper()
	entries, err := os.ReadDir(p.cuts)
	if err != nil || len(entries) != 1 || entries[0].Name() != "LOCK" {
		t.Errorf("in %s are %v, %v; want its lock alone", p.cuts, entries, err)
	}
}

func TestRefusedOptions(t *testing.T) {
	for name, set := range map[string]func(*pebbledb.Options){
		"ReadOnly":                   func(o *pebbledb.Options) { o.ReadOnly = true },
		"WALDir":                     func(o *pebbledb.Options) { o.WALDir = t.TempDir() },
		"WALFailover":                func(o *pebbledb.Options) { o.WALFailover = new(pebbledb.WALFailoverOptions) },
		"WALRecoveryDirs":            func(o *pebbledb.Options) { o.WALRecoveryDirs = []wal.Dir{{Dirname: t.TempDir()}} },
		"Experimental.RemoteStorage": func(o *pebbledb.Options) { o.Experimental.RemoteStorage = remote.MakeSimpleFactory(nil) },
		"FS":                         func(o *pebbledb.Options) { o.FS = vfs.NewMem() },
	} {
		t.Run(name, func(t *testing.T) {
			p, opts := newPlace(t), small()
			set(opts)
			_, err := Open(p.dir, opts, p.cuts)
			wantError(t, err, p.dir, "pebble.Options."+name+" is set", "leave it unset")
			if _, err := os.Stat(p.dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v; want nothing", p.dir, err)
			}
		})
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v; want %q in it", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%v: want one line", err)
	}
}

func TestRefusedDirectories(t *testing.T) {
	run := t.TempDir()
	dir := filepath.Join(run, "state")
	link := filepath.Join(run, "link")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, link); err != nil {
		t.Skip(err) // Windows, where links need a privilege
	}
	for name, p := range map[string]place{
		"cuts in the database": {dir, filepath.Join(dir, "cuts")},
		"database in the cuts": {filepath.Join(run, "cuts", "state"), filepath.Join(run, "cuts")},
		"the same":             {dir, dir},
		"the same by a link":   {dir, link},
		"no cuts":              {dir, ""},
		"no database":          {"", filepath.Join(run, "cuts")},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(p.dir, small(), p.cuts); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// To begin anew beside another engine's state would be to begin in the midst of the input.
func TestStateOfAnotherEngine(t *testing.T) {
	p := newPlace(t)
	if err := errors.Join(os.MkdirAll(p.dir, 0o777), os.WriteFile(filepath.Join(p.dir, "state.bolt"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err := Open(p.dir, small(), p.cuts)
	wantError(t, err, "a Pebble database is not there", "state.bolt", "not of this engine")
	if entries, err := os.ReadDir(p.dir); err != nil || len(entries) != 1 {
		t.Errorf("there are %v, %v", entries, err)
	}
}

// A host that closes the database by itself gets an error, and no panic in a goroutine that is
// not its own.
func TestDatabaseClosedByTheHost(t *testing.T) {
	p := newPlace(t)
	e, err := Open(p.dir, small(), p.cuts)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.DB.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err = e.Cut(t.Context())
	wantError(t, err, "close it by the engine's Close")
	defer func() {
		_ = e.health.Close() // which release did not come to
		if recover() == nil {
			t.Error("Pebble does not panic when it is closed twice any more: let Close return its error")
		}
	}()
	_ = e.Close()
}

// Two databases that swept each other's cuts would lose them in a commit.
func TestDirectoryForCutsBelongsToOneDatabase(t *testing.T) {
	p, other := newPlace(t), newPlace(t)
	e := mustOpen(t, p, small())
	mustWrite(t, e, "a", "1")
	src, remove := mustCut(t, e)
	_, err := Open(other.dir, small(), p.cuts)
	wantError(t, err, p.cuts, "is used for the cuts of a database that is open", "of its own")
	mustCommit(t, mustClaim(t, "mem://"+t.Name()), src)
	if err := remove(); err != nil {
		t.Error(err)
	}
}

func TestDatabaseThatIsOpen(t *testing.T) {
	p := newPlace(t)
	mustOpen(t, p, small())
	_, err := Open(p.dir, small(), newPlace(t).cuts)
	wantError(t, err, "opening the database in "+p.dir)
}

// What a process that died has left is removed, and nothing else.
func TestOpenSweepsCuts(t *testing.T) {
	p := newPlace(t)
	left := filepath.Join(p.cuts, cutPrefix+"left", "000007.sst")
	mine := filepath.Join(p.cuts, "notes")
	for _, name := range []string{left, mine} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o777), os.WriteFile(name, nil, 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	mustOpen(t, p, small())
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
	if err := os.Remove(mine); err != nil {
		t.Error(err)
	}
	wantNoCuts(t, p)
}

func TestOptionsAreNotChanged(t *testing.T) {
	opts := small()
	heard := 0
	opts.EventListener = &pebbledb.EventListener{FlushEnd: func(pebbledb.FlushInfo) { heard++ }}
	listener := opts.EventListener
	e := mustOpen(t, newPlace(t), opts)
	mustWrite(t, e, "a", "1")
	if err := e.DB.Flush(); err != nil {
		t.Fatal(err)
	}
	if heard == 0 {
		t.Error("the host's own listener heard nothing")
	}
	if opts.DisableWAL || opts.EventListener != listener || opts.MaxManifestFileSize != 0 {
		t.Error("they are")
	}
	if err := e.DB.Set([]byte("a"), nil, pebbledb.Sync); err == nil {
		t.Error("a write with Sync says that it is durable")
	}
}

// A database that was used with a log, and not closed, opens with what is in it.
func TestLogOfAnEarlierLifeIsRead(t *testing.T) {
	p := newPlace(t)
	db, err := pebbledb.Open(p.dir, small())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Set([]byte("a"), []byte("1"), pebbledb.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
	e := mustOpen(t, p, small())
	mustWrite(t, e, "b", "2")
	src, remove := mustCut(t, e)
	c := mustCommit(t, mustClaim(t, "mem://"+t.Name()), src)
	if err := remove(); err != nil {
		t.Error(err)
	}
	wantState(t, mustRestore(t, c), map[string]string{"a": "1", "b": "2"})
}

func wantState(t testing.TB, dir string, want map[string]string) {
	t.Helper()
	got, err := read(dir, small())
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%s holds %v, %v; want %v", dir, got, err, want)
	}
}

// Another database of the same task, whose tables have the same numbers and sizes,
// and other data.
func TestStateThatWasNotResumed(t *testing.T) {
	owner := mustClaim(t, "mem://"+t.Name())
	for _, value := range []string{"one", "two"} {
		e := mustOpen(t, newPlace(t), small())
		mustWrite(t, e, "key", value)
		src, remove := mustCut(t, e)
		c := mustCommit(t, owner, src)
		if err := remove(); err != nil {
			t.Error(err)
		}
		wantState(t, mustRestore(t, c), map[string]string{"key": value})
	}
}

func TestOneCutAtATime(t *testing.T) {
	p := newPlace(t)
	e := mustOpen(t, p, small())
	owner := mustClaim(t, "mem://"+t.Name())
	mustWrite(t, e, "a", "1")
	src, remove := mustCut(t, e)
	if _, _, err := e.Cut(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("%v; want ErrBusy", err)
	}
	c := mustCommit(t, owner, src)
	for range 2 { // a second call does nothing
		if err := remove(); err != nil {
			t.Error(err)
		}
	}
	wantNoCuts(t, p)
	src, again := mustCut(t, e)
	if err := remove(); err != nil { // of the cut before
		t.Error(err)
	}
	mustCommit(t, owner, src)
	if err := again(); err != nil {
		t.Error(err)
	}
	wantState(t, mustRestore(t, c), map[string]string{"a": "1"})
}

func TestCutThatIsRemovedFailsToBeCommitted(t *testing.T) {
	e := mustOpen(t, newPlace(t), small())
	owner := mustClaim(t, "mem://"+t.Name())
	src, remove := mustCut(t, e)
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Commit(t.Context(), checkpoint.Snapshot{State: src}); err == nil {
		t.Error("committed")
	}
}

func TestCutWithAnEndedContext(t *testing.T) {
	p := newPlace(t)
	e := mustOpen(t, p, small())
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("it is over")
	cancel(over)
	if _, _, err := e.Cut(ctx); !errors.Is(err, over) {
		t.Errorf("%v; want its cause", err)
	}
	src, remove := mustCut(t, e)
	mustCommit(t, mustClaim(t, "mem://"+t.Name()), src)
	if err := remove(); err != nil {
		t.Error(err)
	}
	wantNoCuts(t, p)
}

func TestClosed(t *testing.T) {
	p := newPlace(t)
	e := mustOpen(t, p, small())
	mustWrite(t, e, "a", "1")
	src, remove := mustCut(t, e)
	c := mustCommit(t, mustClaim(t, "mem://"+t.Name()), src)
	for range 2 {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := e.Cut(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("%v; want ErrClosed", err)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
	wantNoCuts(t, p)
	wantState(t, mustRestore(t, c), map[string]string{"a": "1"})
}

// Tables that are ingested while a cut is made may be in it or not.
func TestIngestionFailsTheCutThatIsBeingMade(t *testing.T) {
	e := mustOpen(t, newPlace(t), small())
	e.gate.watch()
	e.gate.ingested() // an ingestion before the cut is fixed is the host's own step
	if err := e.gate.broken(); err != nil {
		t.Error(err)
	}
	e.gate.close()
	e.gate.created(1, "ingesting")
	if err := e.gate.broken(); !errors.Is(err, errIngested) {
		t.Errorf("%v; want errIngested", err)
	}
	e.gate.open()
}

// A cut that is made when its caller gives it up goes, and gives its place back.
func TestCutThatIsGivenUpWhenItIsMade(t *testing.T) {
	p := newPlace(t)
	e := mustOpen(t, p, small())
	c, err := e.begin()
	if err != nil {
		t.Fatal(err)
	}
	c.run()
	c.abandon(errRemoved)
	wantNoCuts(t, p)
	_, remove := mustCut(t, e)
	if err := remove(); err != nil {
		t.Error(err)
	}
}
