package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	badgerdb "github.com/dgraph-io/badger/v4"
	bolt "go.etcd.io/bbolt"

	"github.com/holdfast-io/holdfast/engines/badger"
	"github.com/holdfast-io/holdfast/engines/bbolt"
	pebbleengine "github.com/holdfast-io/holdfast/engines/pebble"
	"github.com/holdfast-io/holdfast/engines/sqlite"
	"github.com/holdfast-io/holdfast/engines/value"
	"github.com/holdfast-io/holdfast/runner"
)

// What package runner takes these engines for. Their own modules do without it, and it prepares
// what is a Preparer without a word if none is.
var (
	_ runner.Engine   = (*badger.Engine)(nil)
	_ runner.Engine   = (*bbolt.Engine)(nil)
	_ runner.Engine   = (*value.Engine[int])(nil)
	_ runner.Preparer = (*pebbleengine.Engine)(nil)
	_ runner.Preparer = (*sqlite.Engine)(nil)
)

// A kind of engine.
type kind struct {
	name string
	open func(dir, cuts string) (state, error)
}

var kinds = []kind{
	{"pebble", openPebble},
	{"bbolt", openBolt},
	{"sqlite", openSQLite},
	{"badger", openBadger},
	{"value (Map)", openMap},
}

type pebbleState struct{ *pebbleengine.Engine }

func openPebble(dir, cuts string) (state, error) {
	e, err := pebbleengine.Open(dir, &pebble.Options{Logger: quiet{pebble.DefaultLogger}}, cuts)
	return pebbleState{e}, err
}

// quiet keeps Pebble's errors and drops its news.
type quiet struct{ pebble.Logger }

func (quiet) Infof(string, ...any) {}

func (s pebbleState) write(keys []string, value func() []byte) error {
	b := s.DB.NewBatch()
	for _, k := range keys {
		if err := b.Set([]byte(k), value(), nil); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	return errors.Join(b.Commit(pebble.NoSync), b.Close())
}

type boltState struct{ *bbolt.Engine }

var bucket = []byte("all")

func openBolt(dir, _ string) (state, error) {
	e, err := bbolt.Open(dir, nil)
	if err != nil {
		return nil, err
	}
	return boltState{e}, e.DB.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
}

func (s boltState) write(keys []string, value func() []byte) error {
	return s.DB.Update(func(tx *bolt.Tx) error {
		for _, k := range keys {
			if err := tx.Bucket(bucket).Put([]byte(k), value()); err != nil {
				return err
			}
		}
		return nil
	})
}

type sqliteState struct{ *sqlite.Engine }

func openSQLite(dir, _ string) (state, error) {
	e, err := sqlite.Open(dir)
	if err != nil {
		return nil, err
	}
	_, err = e.DB.Exec("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
	return sqliteState{e}, err
}

func (s sqliteState) write(keys []string, value func() []byte) error {
	tx, err := s.DB.Begin()
	if err != nil {
		return err
	}
	for _, k := range keys {
		if _, err := tx.Exec("INSERT OR REPLACE INTO state VALUES (?, ?)", k, value()); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

type badgerState struct{ *badger.Engine }

func openBadger(dir, cuts string) (state, error) {
	if err := os.MkdirAll(cuts, 0o777); err != nil {
		return nil, err
	}
	e, err := badger.Open(dir, filepath.Join(cuts, "db"), badgerdb.DefaultOptions("").WithLoggingLevel(badgerdb.ERROR))
	return badgerState{e}, err
}

func (s badgerState) write(keys []string, value func() []byte) error {
	return s.DB.Update(func(tx *badgerdb.Txn) error {
		for _, k := range keys {
			if err := tx.Set([]byte(k), value()); err != nil {
				return err
			}
		}
		return nil
	})
}

type mapState struct {
	*value.Engine[*value.Map[string, []byte]]
}

func openMap(dir, _ string) (state, error) {
	e, err := value.Open(dir, value.MapCodec[string, []byte]())
	return mapState{e}, err
}

func (s mapState) write(keys []string, value func() []byte) error {
	for _, k := range keys {
		s.Value.Set(k, value())
	}
	return nil
}
