// Package mem keeps objects in memory. It is the reference implementation of
// backend.Store. The engine's own tests use it, because they can set its clock.
//
// Importing it registers the scheme mem. Within one process, all URLs with the same
// host, as in mem://name/path, share one [Bucket]. Nothing is kept after the process
// has ended.
package mem

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

func init() { backend.Register("mem", open) }

var named sync.Map // host of a URL -> *Bucket

func open(_ context.Context, u *url.URL) (backend.Store, error) {
	if u.Host == "" {
		return nil, backend.Invalidf("store URL %q has no name; write mem://name", u)
	}
	if err := backend.NewParams(u).Err(); err != nil {
		return nil, err
	}
	b, _ := named.LoadOrStore(u.Host, NewBucket(time.Now))
	prefix := strings.Trim(u.Path, "/")
	if prefix != "" {
		prefix += "/"
	}
	if err := backend.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	return backend.Prefix(b.(*Bucket).open("mem://"+u.Host), prefix), nil
}

// A Bucket holds objects. Any number of independent Stores may be open on it.
type Bucket struct {
	now func() time.Time

	mu      sync.RWMutex
	objects map[string]object
	keys    []string // of objects, in ascending order
}

type object struct {
	data    []byte // never changed
	modTime time.Time
}

// NewBucket returns an empty Bucket. now is its clock.
func NewBucket(now func() time.Time) *Bucket {
	return &Bucket{now: now, objects: make(map[string]object)}
}

// Open returns a new Store on the bucket.
func (b *Bucket) Open() backend.Store { return b.open("mem:") }

func (b *Bucket) open(name string) *store { return &store{bucket: b, name: name} }

type store struct {
	bucket *Bucket
	name   string
	closed atomic.Bool
}

var _ backend.Store = (*store)(nil)

func (s *store) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	o, err := s.write(ctx, key, data, false)
	return o, s.wrap("create", key, err)
}

func (s *store) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	o, err := s.write(ctx, key, data, true)
	return o, s.wrap("put", key, err)
}

func (s *store) write(ctx context.Context, key string, data []byte, replace bool) (backend.Object, error) {
	if err := cmp.Or(s.check(ctx), backend.CheckKey(key)); err != nil {
		return backend.Object{}, err
	}
	data = bytes.Clone(data)
	b := s.bucket
	b.mu.Lock()
	defer b.mu.Unlock()
	i, taken := slices.BinarySearch(b.keys, key)
	if taken && !replace {
		return backend.Object{}, backend.ErrExist
	}
	if !taken {
		b.keys = slices.Insert(b.keys, i, key)
	}
	o := object{data, b.now()}
	b.objects[key] = o
	return o.describe(key), nil
}

func (s *store) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	n, err := s.read(ctx, key, offset, p)
	return n, s.wrap("get", key, err)
}

func (s *store) read(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	if err := cmp.Or(s.check(ctx), backend.CheckKey(key)); err != nil {
		return 0, err
	}
	s.bucket.mu.RLock()
	o, ok := s.bucket.objects[key]
	s.bucket.mu.RUnlock()
	if !ok {
		return 0, backend.ErrNotExist
	}
	if len(p) == 0 || offset < 0 || offset > 0 && offset >= int64(len(o.data)) {
		return 0, backend.ErrRange
	}
	return copy(p, o.data[offset:]), nil
}

func (s *store) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		after := after // each range over the sequence begins after the caller's key
		for {
			page, err := s.page(ctx, prefix, after)
			if err != nil {
				yield(backend.Object{}, s.wrap("list", prefix, err))
				return
			}
			for _, o := range page {
				if !yield(o, nil) {
					return
				}
				after = o.Key
			}
			if len(page) == 0 {
				return
			}
		}
	}
}

// page returns the next objects of a listing. It lists in pages as services do: an
// object that is created or deleted between two pages may or may not be seen.
func (s *store) page(ctx context.Context, prefix, after string) ([]backend.Object, error) {
	if err := cmp.Or(s.check(ctx), backend.CheckPrefix(prefix)); err != nil {
		return nil, err
	}
	b := s.bucket
	b.mu.RLock()
	defer b.mu.RUnlock()
	i, found := slices.BinarySearch(b.keys, max(prefix, after))
	if found && after >= prefix {
		i++
	}
	var page []backend.Object
	for ; i < len(b.keys) && len(page) < 1000 && strings.HasPrefix(b.keys[i], prefix); i++ {
		page = append(page, b.objects[b.keys[i]].describe(b.keys[i]))
	}
	return page, nil
}

func (s *store) Delete(ctx context.Context, keys ...string) error {
	if err := s.check(ctx); err != nil {
		return s.wrap("delete", "", err)
	}
	for _, key := range keys {
		if err := backend.CheckKey(key); err != nil {
			return s.wrap("delete", key, err)
		}
	}
	for _, key := range keys {
		s.bucket.delete(key)
	}
	return nil
}

func (b *Bucket) delete(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i, found := slices.BinarySearch(b.keys, key); found {
		b.keys = slices.Delete(b.keys, i, i+1)
		delete(b.objects, key)
	}
}

func (s *store) Close() error {
	s.closed.Store(true)
	return nil
}

func (s *store) check(ctx context.Context) error {
	if s.closed.Load() {
		return backend.ErrClosed
	}
	return ctx.Err()
}

func (s *store) wrap(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return &backend.Error{Op: op, Store: s.name, Key: key, Err: err}
}

func (o object) describe(key string) backend.Object {
	return backend.Object{Key: key, Size: int64(len(o.data)), ModTime: o.modTime}
}
