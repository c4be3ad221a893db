package main

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
	recordSize  = 256
	batchOf     = 100 // records
	perMiB      = 1 << 20 / recordSize
	changedPart = 100 // one record in so many is a hundredth
)

// A state is a database of a fixed number of records.
type state struct {
	db      *pebbledb.DB
	records uint64
	chance  *rand.Rand
	content *rand.ChaCha8
	value   [recordSize - 16]byte
}

// newState fills a database.
func newState(ctx context.Context, db *pebbledb.DB, sizeMiB int) (*state, error) {
	s := &state{
		db: db, records: uint64(sizeMiB) * perMiB,
		chance: rand.New(rand.NewPCG(1, 2)), content: rand.NewChaCha8([32]byte{3}),
	}
	fmt.Fprintf(os.Stderr, "filling a database of %d MiB\n", sizeMiB)
	for i := uint64(0); i < s.records; i += batchOf {
		if err := s.write(func(k int) uint64 { return i + uint64(k) }); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return s, db.Flush()
}

// overwrite gives so many records a new value, a batch at a time.
func (s *state) overwrite(records int) error {
	for range records / batchOf {
		if err := s.write(func(int) uint64 { return s.chance.Uint64N(s.records) }); err != nil {
			return err
		}
	}
	return nil
}

// write writes one batch.
func (s *state) write(record func(k int) uint64) error {
	b := s.db.NewBatchWithSize(batchOf * (recordSize + 16))
	for k := range batchOf {
		_, _ = s.content.Read(s.value[:]) // it never fails
		var key [16]byte
		binary.BigEndian.PutUint64(key[:], record(k)*0x9e3779b97f4a7c15) // neighbours are far apart
		if err := b.Set(key[:], s.value[:], nil); err != nil {
			return err
		}
	}
	return errors.Join(b.Commit(pebbledb.NoSync), b.Close())
}
