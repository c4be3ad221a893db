package sqlite

import (
	"bytes"
	"database/sql"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/internal/enginetest"
)

var killN = flag.Int("kill.n", 12, "how often TestKill kills a process")

func TestMain(m *testing.M) {
	if kind.Child() {
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func TestKill(t *testing.T)    { kind.Kill(t, *killN) }
func TestMoments(t *testing.T) { kind.Moments(t) }
func TestRules(t *testing.T)   { kind.Rules(t) }

var kind = enginetest.Kind{
	Open:    func(dir, _ string) (enginetest.DB, error) { return open(dir) },
	Read:    read,
	ErrBusy: ErrBusy, ErrClosed: ErrClosed,
	Prepares: true,
}

// A keyed engine has all keys in one table.
type keyed struct{ *Engine }

func open(dir string) (keyed, error) {
	e, err := Open(dir)
	if err != nil {
		return keyed{}, err
	}
	_, err = e.DB.Exec("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
	return keyed{e}, err
}

func (k keyed) Get(key string) (value string, err error) {
	err = k.DB.QueryRow("SELECT value FROM state WHERE key = ?", key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return value, err
}

func (k keyed) Write(set map[string]string, remove []string) error {
	tx, err := k.DB.Begin()
	if err != nil {
		return err
	}
	for key, value := range set {
		if _, err := tx.Exec("INSERT OR REPLACE INTO state VALUES (?, ?)", key, value); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	for _, key := range remove {
		if _, err := tx.Exec("DELETE FROM state WHERE key = ?", key); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

// read returns all that a database holds, which SQLite has checked.
func read(dir string) (got map[string]string, err error) {
	e, err := Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	var intact string
	if err := e.DB.QueryRow("PRAGMA integrity_check").Scan(&intact); err != nil || intact != "ok" {
		return nil, errors.Join(err, errors.New("the integrity check says "+intact))
	}
	rows, err := e.DB.Query("SELECT key, value FROM state")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	got = make(map[string]string)
	for rows.Next() {
		var key, value string
		if err := rows.Scan(&key, &value); err != nil {
			return nil, err
		}
		got[key] = value
	}
	return got, rows.Err()
}

func TestRefused(t *testing.T) {
	dir, other := filepath.Join(t.TempDir(), "state"), t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "state.bolt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, dir, pragma, want string
	}{
		{"no directory", "", "cache_size(10)", "has no name"},
		{"the state of another engine", other, "cache_size(10)", "not of this engine"},
		{"a mode without a log", dir, "journal_mode(DELETE)", `pragma "journal_mode(DELETE)" is given`},
		{"in capitals", dir, "Locking_Mode = EXCLUSIVE", `pragma "Locking_Mode = EXCLUSIVE" is given`},
		{"of a database by its name", dir, "main.journal_mode(DELETE)", `pragma "main.journal_mode(DELETE)" is given`},
		{"syncs", dir, "synchronous(FULL)", `pragma "synchronous(FULL)" is given`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Open(c.dir, c.pragma); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v; want nothing", dir, err)
			}
		})
	}
}

func mustOpen(t *testing.T) keyed {
	t.Helper()
	k, err := open(filepath.Join(t.TempDir(), "a state?#%20")) // which a URL escapes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	mustWrite(t, k, "a", "1")
	return k
}

func mustWrite(t *testing.T, k keyed, key, value string) {
	t.Helper()
	if err := k.Write(map[string]string{key: value}, nil); err != nil {
		t.Fatal(err)
	}
}

// While a cut is open, nothing that anybody asks for writes to the database file; after it,
// what was written is there.
func TestFileStaysAsItIsWhileACutIsOpen(t *testing.T) {
	k := mustOpen(t)
	_, remove, err := k.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := mustRead(t, k)
	other, err := sql.Open("sqlite", k.url([]string{"busy_timeout(1)"}))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.SetMaxOpenConns(1)
	var wait int
	if err := other.QueryRow("PRAGMA busy_timeout").Scan(&wait); err != nil || wait != 1 {
		t.Fatalf("the host's own time to wait for locks is not set: %d, %v", wait, err)
	}
	for _, mode := range []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"} {
		for range 20 {
			mustWrite(t, k, "a", strings.Repeat(mode, 10_000))
		}
		var busy, inLog, copied int
		if err := other.QueryRow("PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &inLog, &copied); err != nil {
			t.Fatal(err)
		}
		if copied > 0 || inLog == 0 {
			t.Errorf("%s copied %d pages of %d in the log", mode, copied, inLog)
		}
	}
	if !bytes.Equal(before, mustRead(t, k)) {
		t.Error("the database file has changed")
	}
	if err := errors.Join(remove(), k.Prepare(t.Context())); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(before, mustRead(t, k)) {
		t.Error("what was written meanwhile never comes to the database file")
	}
}

func mustRead(t *testing.T, k keyed) []byte {
	t.Helper()
	info, err := k.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, info.Size())
	if _, err := k.file.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return data
}

// A transaction keeps the log from being copied or begun anew. The cut says so, and the next one
// goes well.
func TestTransactionThatIsOpen(t *testing.T) {
	const reads, writes = "SELECT value FROM state", "UPDATE state SET value = '3' RETURNING value"
	for _, c := range []struct {
		name, statement string
		late            bool // it begins after the last write
	}{
		{"a reader of an older state", reads, false},
		{"a reader of the newest state", reads, true},
		{"a writer", writes, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := mustOpen(t)
			if c.late {
				mustWrite(t, k, "a", "2")
			}
			tx, err := k.DB.Begin()
			if err != nil {
				t.Fatal(err)
			}
			var value string
			if err := tx.QueryRow(c.statement).Scan(&value); err != nil {
				t.Fatal(err)
			}
			if !c.late {
				mustWrite(t, k, "a", "2")
			}
			if _, err := k.own.ExecContext(t.Context(), "PRAGMA busy_timeout(1)"); err != nil {
				t.Fatal(err)
			}
			if _, _, err := k.Cut(t.Context()); !errors.Is(err, errOpen) {
				t.Errorf("%v; want %v", err, errOpen)
			}
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			_, remove, err := k.Cut(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := remove(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is written between the copying and the transaction would leave the file to be
// changed.
func TestWriteDuringACutIsNoticed(t *testing.T) {
	k := mustOpen(t)
	k.mu.Lock()
	err := k.begin(t.Context()) // the log was not copied
	k.mu.Unlock()
	if !errors.Is(err, errWritten) {
		t.Errorf("%v; want %v", err, errWritten)
	}
	if k.inUse {
		t.Error("its transaction is still open")
	}
}
