package backend

import (
	"context"
	"iter"
	"sync/atomic"
)

// A Meter counts the use of stores, so that a program knows what its checkpoints
// cost. The zero value is ready to use. One Meter may be used for many stores and by
// many goroutines at the same time.
type Meter struct {
	create, put, get, list, delete counter
}

type counter struct{ calls, failed, keys, bytes atomic.Int64 }

// Stats is what a Meter has counted so far.
type Stats struct {
	Create Count `json:"create"`
	Put    Count `json:"put"`
	Get    Count `json:"get"`
	List   Count `json:"list"`
	Delete Count `json:"delete"`
}

// Count is the use of one method. Calls are calls of the Store: a List with many
// pages or a Delete with many batches is one call. Its Keys tell how many requests
// the service got, because most services handle 1,000 keys per request.
type Count struct {
	Calls  int64 `json:"calls"`
	Failed int64 `json:"failed"` // of these calls; includes those that found the key taken or absent
	Keys   int64 `json:"keys"`   // that calls named, also failed ones, or that a List yielded
	Bytes  int64 `json:"bytes"`  // sent by create and put, received by get
}

// Stats returns the counts so far.
func (m *Meter) Stats() Stats {
	return Stats{
		Create: m.create.count(), Put: m.put.count(), Get: m.get.count(),
		List: m.list.count(), Delete: m.delete.count(),
	}
}

func (c *counter) count() Count {
	return Count{c.calls.Load(), c.failed.Load(), c.keys.Load(), c.bytes.Load()}
}

func (c *counter) add(keys, bytes int, err error) {
	c.calls.Add(1)
	c.keys.Add(int64(keys))
	c.bytes.Add(int64(bytes))
	if err != nil {
		c.failed.Add(1)
	}
}

// Wrap returns a Store whose use m counts. Closing it closes store.
func (m *Meter) Wrap(store Store) Store { return &counted{store, m} }

type counted struct {
	store Store
	meter *Meter
}

func (s *counted) Create(ctx context.Context, key string, data []byte) (Object, error) {
	o, err := s.store.Create(ctx, key, data)
	s.meter.create.add(1, len(data), err)
	return o, err
}

func (s *counted) Put(ctx context.Context, key string, data []byte) (Object, error) {
	o, err := s.store.Put(ctx, key, data)
	s.meter.put.add(1, len(data), err)
	return o, err
}

func (s *counted) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	n, err := s.store.Get(ctx, key, offset, p)
	s.meter.get.add(1, n, err)
	return n, err
}

func (s *counted) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		keys := 0
		var failed error
		defer func() { s.meter.list.add(keys, 0, failed) }()
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
	s.meter.delete.add(len(keys), 0, err)
	return err
}

func (s *counted) Close() error { return s.store.Close() }
