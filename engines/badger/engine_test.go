package badger

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
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
	Open:    open,
	Read:    readDir,
	ErrBusy: ErrBusy, ErrClosed: ErrClosed,
}

// small is options with which a few kilobytes are many tables, some with values in the
// value log.
func small() badgerdb.Options {
	return badgerdb.DefaultOptions("").WithLoggingLevel(badgerdb.ERROR).WithMemTableSize(128 << 10).WithValueThreshold(200).
		WithValueLogFileSize(1 << 20).WithBaseTableSize(64 << 10).WithBaseLevelSize(256 << 10).WithBlockCacheSize(1 << 20).WithNumCompactors(2)
}

type keyed struct{ *Engine }

func open(dir, cuts string) (enginetest.DB, error) {
	e, err := Open(dir, filepath.Join(cuts, "db"), small())
	return keyed{e}, err
}

func (k keyed) Get(key string) (value string, err error) {
	err = k.DB.View(func(tx *badgerdb.Txn) error {
		item, err := tx.Get([]byte(key))
		if errors.Is(err, badgerdb.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return item.Value(func(v []byte) error { value = string(v); return nil })
	})
	return value, err
}

func (k keyed) Write(set map[string]string, remove []string) error {
	return k.DB.Update(func(tx *badgerdb.Txn) error {
		for key, value := range set {
			if err := tx.Set([]byte(key), []byte(value)); err != nil {
				return err
			}
		}
		for _, key := range remove {
			if err := tx.Delete([]byte(key)); err != nil {
				return err
			}
		}
		return nil
	})
}

// readDir returns all that a database holds after its tables were checked.
func readDir(dir string) (got map[string]string, err error) {
	db, err := os.MkdirTemp("", "badger-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(db)) }()
	e, err := Open(dir, filepath.Join(db, "db"), small())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := e.DB.VerifyChecksum(); err != nil {
		return nil, err
	}
	got = make(map[string]string)
	err = e.DB.View(func(tx *badgerdb.Txn) error {
		it := tx.NewIterator(badgerdb.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			got[string(it.Item().Key())] = string(value)
		}
		return nil
	})
	return got, err
}

// What Badger keeps with a value comes back with it.
func TestMetaAndExpiry(t *testing.T) {
	run := t.TempDir()
	dir, later := filepath.Join(run, "state"), time.Now().Add(time.Hour)
	e, err := Open(dir, filepath.Join(run, "db"), small())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	err = e.DB.Update(func(tx *badgerdb.Txn) error {
		return errors.Join(
			tx.SetEntry(badgerdb.NewEntry([]byte("expires"), []byte("x")).WithMeta(7).WithTTL(time.Until(later))),
			tx.SetEntry(badgerdb.NewEntry([]byte("empty"), nil)))
	})
	if err != nil {
		t.Fatal(err)
	}
	state, err := e.fix()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, File))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(state.Write(f), state.Free(), f.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir, filepath.Join(run, "again"), small())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	err = again.DB.View(func(tx *badgerdb.Txn) error {
		item, err := tx.Get([]byte("expires"))
		if err != nil {
			return err
		}
		if item.UserMeta() != 7 || max(item.ExpiresAt(), uint64(later.Unix()))-min(item.ExpiresAt(), uint64(later.Unix())) > 2 {
			t.Errorf("meta %d, expires at %d; want 7 and %d", item.UserMeta(), item.ExpiresAt(), later.Unix())
		}
		_, err = tx.Get([]byte("empty"))
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name, file, want string
		opts             badgerdb.Options
	}{
		{"encrypted", magic + "\x00", "EncryptionKey is set", small().WithEncryptionKey(make([]byte, 16))},
		{"read only", magic + "\x00", "ReadOnly or InMemory is set", small().WithReadOnly(true)},
		{"in memory", magic + "\x00", "ReadOnly or InMemory is set", small().WithInMemory(true)},
		{"another file", "SQLite format 3\x00 and more", "it is no file of records", small()},
		{"a file that was cut off", magic + "\x01\x01\x00\x00a", "unexpected EOF", small()},
		{"a file without its end", magic, "unexpected EOF", small()},
		{"more after the end", magic + "\x00x", "it goes on after its end", small()},
		{"a length that cannot be", magic + "\xff\xff\xff\xff\xff\xff\x01\x01\x00\x00a", "longer than", small()},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, File), []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir, filepath.Join(t.TempDir(), "db"), c.opts)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

// A place that is refused keeps what it holds.
func TestRefusedPlaces(t *testing.T) {
	for _, c := range []struct{ name, dir, db, want string }{
		{"no directory", "", "db", "must have names"},
		{"one and the same", "state", "state/../state", "must be apart"},
		{"the database around the state", "run/state", "run", "must be apart"},
		{"the database in the state", "state", "state/db", "must be apart"},
		{"around it by another path", "run/state", "link/run", "must be apart"},
		{"the state of another engine", "other", "db", "not of this engine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			for _, file := range []string{"state/" + File, "run/state/" + File, "other/state.bolt"} {
				if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(magic+"\x00"), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(".", "link"); err != nil && strings.HasPrefix(c.db, "link") {
				t.Skip(err) // Windows, where links need a privilege
			}
			if _, err := Open(c.dir, c.db, small()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
			for _, file := range []string{"state/" + File, "run/state/" + File, "other/state.bolt"} {
				if _, err := os.Stat(file); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// What is removed before a database is opened is not that of an engine that is open.
func TestDatabaseThatIsOpen(t *testing.T) {
	run := t.TempDir()
	db := filepath.Join(run, "db")
	e, err := Open(filepath.Join(run, "state"), db, small())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(run, "other"), db, small()); err == nil || !strings.Contains(err.Error(), "is open") {
		t.Errorf("%v; want an error that it is open", err)
	}
	if err := e.DB.Update(func(tx *badgerdb.Txn) error { return tx.Set([]byte("a"), []byte("b")) }); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err = Open(filepath.Join(run, "other"), db, small()); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
