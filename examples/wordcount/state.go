package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/cockroachdb/pebble/v2"
)

// A state is what a task has counted: how often it saw each word, in a pebble
// database. It is used by one goroutine.
type state struct {
	db    *pebble.DB
	batch *pebble.Batch // counted, and not in db yet
}

// batchSize is when a batch is written, in bytes.
const batchSize = 256 << 10

// pebbleOptions: no write-ahead log, because after a crash the job goes back
// to its newest checkpoint, and never to what the working directory holds.
func pebbleOptions() *pebble.Options {
	return &pebble.Options{DisableWAL: true, Merger: &sum, Logger: quiet{pebble.DefaultLogger}}
}

// openState opens the state in dir, which may be empty or absent.
func openState(dir string) (*state, error) {
	db, err := pebble.Open(dir, pebbleOptions())
	if err != nil {
		return nil, err
	}
	return &state{db, db.NewBatch()}, nil
}

// add counts one word.
func (s *state) add(word []byte) error {
	if err := s.batch.Merge(word, one, nil); err != nil {
		return err
	}
	if s.batch.Len() < batchSize {
		return nil
	}
	return s.write()
}

func (s *state) write() error {
	if err := s.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	s.batch.Reset()
	return nil
}

// cut makes dir a copy of the state as it is now. It is cheap however large
// the state is: pebble's tables never change, so they need only be linked.
// Counting may go on when it returns.
func (s *state) cut(dir string) error {
	if err := s.write(); err != nil {
		return err
	}
	// There is no log, so what is in memory must be in tables.
	if err := s.db.Flush(); err != nil {
		return err
	}
	return s.db.Checkpoint(dir)
}

func (s *state) close() error { return errors.Join(s.batch.Close(), s.db.Close()) }

// counts yields the words in the state at dir, and how often each was seen.
// What it yields last is the error, if there was one.
func counts(dir string) iter.Seq2[wordCount, error] {
	return func(yield func(wordCount, error) bool) {
		opts := pebbleOptions()
		opts.ReadOnly = true
		db, err := pebble.Open(dir, opts)
		if err != nil {
			yield(wordCount{}, err)
			return
		}
		defer db.Close()
		it, err := db.NewIter(nil)
		if err != nil {
			yield(wordCount{}, err)
			return
		}
		defer it.Close()
		for ok := it.First(); ok; ok = it.Next() {
			n, err := decode(it.Value())
			if !yield(wordCount{string(it.Key()), n}, err) || err != nil {
				return
			}
		}
		if err := it.Error(); err != nil {
			yield(wordCount{}, err)
		}
	}
}

type wordCount struct {
	word string
	n    uint64
}

// sum is pebble's merge operator for counts, which are uvarints: adding to one
// is a write that reads nothing.
var sum = pebble.Merger{
	Name: "holdfast.wordcount.sum",
	Merge: func(_, value []byte) (pebble.ValueMerger, error) {
		t := new(total)
		return t, t.add(value)
	},
}

var one = binary.AppendUvarint(nil, 1)

type total struct{ n uint64 }

func (t *total) add(value []byte) error {
	n, err := decode(value)
	t.n += n
	return err
}

func (t *total) MergeNewer(value []byte) error { return t.add(value) }
func (t *total) MergeOlder(value []byte) error { return t.add(value) }

func (t *total) Finish(bool) ([]byte, io.Closer, error) {
	return binary.AppendUvarint(nil, t.n), nil, nil
}

func decode(value []byte) (uint64, error) {
	n, size := binary.Uvarint(value)
	if size <= 0 || size != len(value) {
		return 0, fmt.Errorf("%x is not a count", value)
	}
	return n, nil
}

// quiet keeps pebble's errors and drops its news.
type quiet struct{ pebble.Logger }

func (quiet) Infof(string, ...any) {}
