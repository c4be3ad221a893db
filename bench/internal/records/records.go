// Package records fills Pebble databases with records, and overwrites them.
package records

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	pebbledb "github.com/cockroachdb/pebble/v2"
)

// Records have keys of 16 bytes and values of random ones, which do not compress.
const (
	Size   = 256 // bytes of a record
	Batch  = 100 // records
	PerMiB = 1 << 20 / Size
)

// A DB is a database of a fixed number of records. It is for one goroutine.
type DB struct {
	Records uint64

	db      *pebbledb.DB
	chance  *rand.Rand
	content *rand.ChaCha8
	value   [Size - 16]byte
}

// New returns the records of a database, of so many MiB. What is written, and where,
// follows from the seed.
func New(db *pebbledb.DB, sizeMiB int, seed uint64) *DB {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return &DB{
		Records: uint64(sizeMiB) * PerMiB,
		db:      db, chance: rand.New(rand.NewPCG(seed, 2)), content: rand.NewChaCha8(key),
	}
}

// Fill writes all records once, and says so on the standard error.
func (d *DB) Fill(ctx context.Context) error {
	fmt.Fprintf(os.Stderr, "filling a database of %d MiB\n", d.Records/PerMiB)
	for i := uint64(0); i < d.Records; i += Batch {
		if err := d.write(func(k int) uint64 { return i + uint64(k) }); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return d.db.Flush()
}

// Overwrite gives so many records, chosen by chance, a new value, a batch at a time.
func (d *DB) Overwrite(records int) error {
	for range records / Batch {
		if err := d.write(func(int) uint64 { return d.Any() }); err != nil {
			return err
		}
	}
	return nil
}

// Any returns a record, chosen by chance.
func (d *DB) Any() uint64 { return d.chance.Uint64N(d.Records) }

// Key returns a record's key: those of neighbours are far apart.
func Key(record uint64) [16]byte {
	var key [16]byte
	binary.BigEndian.PutUint64(key[:], record*0x9e3779b97f4a7c15)
	return key
}

// Value returns a new value for a record, which is valid until the next call.
func (d *DB) Value() []byte {
	_, _ = d.content.Read(d.value[:]) // it never fails
	return d.value[:]
}

// write writes one batch.
func (d *DB) write(record func(k int) uint64) error {
	b := d.db.NewBatchWithSize(Batch * (Size + 16))
	for k := range Batch {
		key := Key(record(k))
		if err := b.Set(key[:], d.Value(), nil); err != nil {
			return err
		}
	}
	return errors.Join(b.Commit(pebbledb.NoSync), b.Close())
}
