package recipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Records in the database: keys of 16 bytes, which are written in an order that
// says nothing about theirs, and values that are of random bytes and of JSON
// lines by turns.
const (
	valueSize = 240
	batchSize = 1000 // records
)

// Pebble makes a database of that many records in work, which must not exist,
// with Pebble's default options, and takes two checkpoints of it as a job does,
// by hard links to its tables: one when all records are written, and one when
// one in a hundred has been overwritten. No compaction is waited for. Change
// replaces the first by the second, in dir.
//
// The records are always the same. How Pebble lays them out depends on when its
// compactions run, and so do State.Bytes and State.Changed, which here counts
// the files that the first checkpoint does not have.
func Pebble(ctx context.Context, dir, work string, records int) (*State, error) {
	p := linked{dir: dir, before: filepath.Join(work, "before"), after: filepath.Join(work, "after")}
	if err := os.Mkdir(work, 0o755); err != nil {
		return nil, err
	}
	if err := p.build(ctx, filepath.Join(work, "db"), records); err != nil {
		return nil, err
	}
	s := &State{Dir: dir, Change: p.change, Rewind: p.rewind}
	if err := s.Rewind(); err != nil {
		return nil, err
	}
	fresh, err := p.fresh()
	for _, f := range fresh {
		s.Changed += f.Size()
	}
	return s, errors.Join(err, s.count())
}

// linked is a directory of links to one of two others.
type linked struct{ dir, before, after string }

func (l *linked) build(ctx context.Context, work string, records int) (err error) {
	db, err := pebble.Open(work, &pebble.Options{Logger: quiet{pebble.DefaultLogger}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(), os.RemoveAll(work)) }()
	w := writer{db: db, values: [kinds]io.Reader{content(random, "pebble"), content(lines, "pebble")}}
	for i := range records {
		if err := w.set(ctx, uint64(i)); err != nil {
			return err
		}
	}
	if err := w.checkpoint(l.before); err != nil {
		return err
	}
	again := rand.New(rand.NewPCG(3, 3))
	for range max(1, records/100) {
		if err := w.set(ctx, again.Uint64N(uint64(records))); err != nil {
			return err
		}
	}
	return w.checkpoint(l.after)
}

// writer writes records in batches.
type writer struct {
	db     *pebble.DB
	batch  *pebble.Batch
	values [kinds]io.Reader
	value  [valueSize]byte
}

// set gives record i a new value.
func (w *writer) set(ctx context.Context, i uint64) error {
	if _, err := io.ReadFull(w.values[kind(i)%kinds], w.value[:]); err != nil {
		return err
	}
	if w.batch == nil {
		w.batch = w.db.NewBatch()
	}
	if err := w.batch.Set(appendHex(nil, scatter(i)), w.value[:], nil); err != nil {
		return err
	}
	if w.batch.Count() < batchSize {
		return nil
	}
	return errors.Join(w.write(), ctx.Err())
}

func (w *writer) write() error {
	if w.batch == nil {
		return nil
	}
	err := w.batch.Commit(pebble.NoSync)
	err = errors.Join(err, w.batch.Close())
	w.batch = nil
	return err
}

func (w *writer) checkpoint(dir string) error {
	if err := w.write(); err != nil {
		return err
	}
	return w.db.Checkpoint(dir, pebble.WithFlushedWAL())
}

// scatter maps numbers to numbers, no two to the same, and neighbours far
// apart. It is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (l *linked) rewind() error { return l.link(l.before) }

// change also makes the files that only the second checkpoint has as young as
// they would be in a job: some programs tell by that what to copy.
func (l *linked) change() error {
	if err := l.link(l.after); err != nil {
		return err
	}
	fresh, err := l.fresh()
	if err != nil {
		return err
	}
	now := time.Now()
	for _, f := range fresh {
		if err := os.Chtimes(filepath.Join(l.dir, f.Name()), now, now); err != nil {
			return err
		}
	}
	return nil
}

// link makes the directory one of links to the files of another.
func (l *linked) link(from string) error {
	if err := os.RemoveAll(l.dir); err != nil {
		return err
	}
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			return fmt.Errorf("pebble's checkpoint has %s, which is no regular file", e.Name())
		}
		if err := os.Link(filepath.Join(from, e.Name()), filepath.Join(l.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// fresh returns the files of the second checkpoint that are not the first's.
func (l *linked) fresh() (found []fs.FileInfo, err error) {
	entries, err := os.ReadDir(l.after)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		after, err := e.Info()
		if err != nil {
			return nil, err
		}
		before, err := os.Stat(filepath.Join(l.before, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case os.SameFile(before, after):
			continue
		}
		found = append(found, after)
	}
	return found, nil
}

// quiet keeps pebble's errors and drops its news.
type quiet struct{ pebble.Logger }

func (quiet) Infof(string, ...any) {}
