package backend

import (
	"context"
	"iter"
	"sync/atomic"
)

// A Ledger counts what is asked of stores: it is how a program knows what its
// checkpoints cost. The zero value is ready to use. One Ledger may serve many
// stores, and many goroutines at once.
type Ledger struct {
	create, put, get, list, delete tally
}

type tally struct{ calls, failed, keys, bytes atomic.Int64 }

// Usage is what a Ledger has counted so far.
type Usage struct {
	Create Count `json:"create"`
	Put    Count `json:"put"`
	Get    Count `json:"get"`
	List   Count `json:"list"`
	Delete Count `json:"delete"`
}

// Count is the use of one verb. Calls are those of the Store: a List of many
// pages and a Delete of many batches are one call, whose keys say how many
// requests the service saw (most take 1,000 keys in one).
type Count struct {
	Calls  int64 `json:"calls"`
	Failed int64 `json:"failed"` // of these calls, including those that found the key taken or absent
	Keys   int64 `json:"keys"`   // that calls named, failed ones too, or that a List yielded
	Bytes  int64 `json:"bytes"`  // sent by create and put, received by get
}

// Usage returns the counts so far.
func (l *Ledger) Usage() Usage {
	return Usage{
		Create: l.create.count(), Put: l.put.count(), Get: l.get.count(),
		List: l.list.count(), Delete: l.delete.count(),
	}
}

func (t *tally) count() Count {
	return Count{t.calls.Load(), t.failed.Load(), t.keys.Load(), t.bytes.Load()}
}

func (t *tally) add(keys, bytes int, err error) {
	t.calls.Add(1)
	t.keys.Add(int64(keys))
	t.bytes.Add(int64(bytes))
	if err != nil {
		t.failed.Add(1)
	}
}

// Wrap returns a Store whose use l counts. Closing it closes store.
func (l *Ledger) Wrap(store Store) Store { return &counted{store, l} }

type counted struct {
	store  Store
	ledger *Ledger
}

func (s *counted) Create(ctx context.Context, key string, data []byte) (Object, error) {
	o, err := s.store.Create(ctx, key, data)
	s.ledger.create.add(1, len(data), err)
	return o, err
}

func (s *counted) Put(ctx context.Context, key string, data []byte) (Object, error) {
	o, err := s.store.Put(ctx, key, data)
	s.ledger.put.add(1, len(data), err)
	return o, err
}

func (s *counted) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	n, err := s.store.Get(ctx, key, offset, p)
	s.ledger.get.add(1, n, err)
	return n, err
}

func (s *counted) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		keys := 0
		var failed error
		defer func() { s.ledger.list.add(keys, 0, failed) }()
		for o, err := range s.store.List(ctx, prefix, after) {
			if err != nil {
				failed = err
			} else {
				keys++
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

func (s *counted) Delete(ctx context.Context, keys ...string) error {
	err := s.store.Delete(ctx, keys...)
	s.ledger.delete.add(len(keys), 0, err)
	return err
}

func (s *counted) Close() error { return s.store.Close() }
