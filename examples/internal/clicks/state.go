package clicks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	engine "github.com/holdfast-io/holdfast/engines/pebble"
	"github.com/holdfast-io/holdfast/runner"
)

// A State is how often a task has seen each page, in a Pebble database. It is used by one
// goroutine, but for Prepare.
type State struct {
	engine *engine.Engine
	batch  *pebble.Batch // counted, and not in the database yet
}

// batchSize is when a batch is written, in bytes.
const batchSize = 256 << 10

func pebbleOptions() *pebble.Options {
	return &pebble.Options{Merger: &sum, Logger: quiet{pebble.DefaultLogger}}
}

// Open opens the state in dir, which may be empty or absent. It is cut in the
// directory cuts.
func Open(dir, cuts string) (*State, error) {
	e, err := engine.Open(dir, pebbleOptions(), cuts)
	if err != nil {
		return nil, err
	}
	return &State{e, e.DB.NewBatch()}, nil
}

// Add counts one click on a page.
func (s *State) Add(page []byte) error {
	if err := s.batch.Merge(page, one, nil); err != nil {
		return err
	}
	if s.batch.Len() < batchSize {
		return nil
	}
	return s.write()
}

func (s *State) write() error {
	if err := s.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	s.batch.Reset()
	return nil
}

// Prepare makes the next cut quicker, beside Add: the database waits for its flush.
func (s *State) Prepare(ctx context.Context) error { return s.engine.Prepare(ctx) }

// Cut captures the state as it is now. It is cheap however large the state is:
// Pebble's tables never change, so they need only be linked. Counting may go on
// when it returns.
func (s *State) Cut(ctx context.Context) (runner.Cut, error) {
	if err := s.write(); err != nil {
		return runner.Cut{}, err
	}
	return runner.Engines{"": s.engine}.Cut(ctx)
}

// Close closes the database. What no checkpoint has is gone.
func (s *State) Close() error { return errors.Join(s.batch.Close(), s.engine.Close()) }

// sum is Pebble's merge operator for counts, which are uvarints: adding to one
// is a write that reads nothing.
var sum = pebble.Merger{
	Name: "holdfast.clicks.sum",
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

// quiet keeps Pebble's errors and drops its news.
type quiet struct{ pebble.Logger }

func (quiet) Infof(string, ...any) {}
