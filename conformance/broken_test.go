package conformance_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/conformance"
)

// clock is far from this machine's clock, as a store's clock may be.
func clock() time.Time { return time.Now().Add(-time.Hour) }

// bent is a Store with some methods replaced.
type bent struct {
	backend.Store
	namespace string
	bucket    *mem.Bucket

	create, put write
	get         read
	list        func(ctx context.Context, prefix, after string) listing
	delete      func(ctx context.Context, keys ...string) error
	close       func() error
}

type (
	write   = func(ctx context.Context, key string, data []byte) (backend.Object, error)
	read    = func(ctx context.Context, key string, offset int64, p []byte) (int, error)
	listing = iter.Seq2[backend.Object, error]
)

func (s *bent) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	if s.create != nil {
		return s.create(ctx, key, data)
	}
	return s.Store.Create(ctx, key, data)
}

func (s *bent) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	if s.put != nil {
		return s.put(ctx, key, data)
	}
	return s.Store.Put(ctx, key, data)
}

func (s *bent) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	if s.get != nil {
		return s.get(ctx, key, offset, p)
	}
	return s.Store.Get(ctx, key, offset, p)
}

func (s *bent) List(ctx context.Context, prefix, after string) listing {
	if s.list != nil {
		return s.list(ctx, prefix, after)
	}
	return s.Store.List(ctx, prefix, after)
}

func (s *bent) Delete(ctx context.Context, keys ...string) error {
	if s.delete != nil {
		return s.delete(ctx, keys...)
	}
	return s.Store.Delete(ctx, keys...)
}

func (s *bent) Close() error {
	if s.close != nil {
		return s.close()
	}
	return s.Store.Close()
}

// has reports whether there is an object at key.
func (s *bent) has(ctx context.Context, key string) bool {
	_, err := s.Store.Get(context.WithoutCancel(ctx), key, 0, make([]byte, 1))
	return err == nil
}

// all returns all objects of a listing.
func (s *bent) all(ctx context.Context, prefix string) []backend.Object {
	var all []backend.Object
	for o, err := range s.Store.List(ctx, prefix, "") {
		if err == nil {
			all = append(all, o)
		}
	}
	return all
}

func yieldAll(objects []backend.Object) listing {
	return func(yield func(backend.Object, error) bool) {
		for _, o := range objects {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// A broken store breaks the contract in one way.
type broken struct {
	name   string
	caught string               // the case that must detect it
	how    func() func(s *bent) // makes what all handles share, and returns the function that breaks one handle
}

// each is for stores whose handles share nothing.
func each(bend func(s *bent)) func() func(s *bent) {
	return func() func(s *bent) { return bend }
}

func (b broken) open() conformance.Open {
	bucket := mem.NewBucket(clock)
	bend := b.how()
	return func(_ context.Context, namespace string) (backend.Store, error) {
		s := &bent{Store: backend.Prefix(bucket.Open(), namespace+"/"), namespace: namespace, bucket: bucket}
		bend(s)
		return s, nil
	}
}

var brokenStores = slices.Concat(brokenWrites, brokenReads, brokenLists, brokenDeletes, brokenHandles)

var brokenWrites = []broken{
	{"create overwrites", "create", each(func(s *bent) {
		s.create = s.Store.Put
	})},
	{"create overwrites, then says that the key is taken", "create", each(func(s *bent) {
		s.create = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			_, err := s.Store.Create(ctx, key, data)
			if errors.Is(err, backend.ErrExist) {
				_, _ = s.Store.Put(ctx, key, data)
			}
			return backend.Object{}, err
		}
	})},
	{"create tries again and meets its own object", "create", each(func(s *bent) {
		s.create = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			_, _ = s.Store.Create(ctx, key, data)
			return s.Store.Create(ctx, key, data)
		}
	})},
	{"create checks, then puts", "create-race", checkThenPut},
	{"create locks its own handle only", "create-race", func() func(s *bent) {
		bend := checkThenPut()
		return func(s *bent) {
			bend(s)
			unlocked := s.create
			var mu sync.Mutex
			s.create = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
				mu.Lock()
				defer mu.Unlock()
				return unlocked(ctx, key, data)
			}
		}
	}},
	{"create shows a half first", "torn-create", func() func(s *bent) {
		half := halfFirst()
		return func(s *bent) { s.create, s.get = half(s, s.Store.Create) }
	}},
	{"put shows a half first", "torn-put", func() func(s *bent) {
		half := halfFirst()
		return func(s *bent) { s.put, s.get = half(s, s.Store.Put) }
	}},
	{"put keeps the old object", "put-replaces", each(func(s *bent) {
		s.put = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			if s.has(ctx, key) {
				return backend.Object{Key: key, Size: int64(len(data)), ModTime: clock()}, nil
			}
			return s.Store.Put(ctx, key, data)
		}
	})},
	{"put leaves the end of a longer object", "put-replaces", each(func(s *bent) {
		s.put = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			old := make([]byte, 1<<10)
			n, _ := s.Store.Get(ctx, key, 0, old)
			if n > len(data) {
				data = append(bytes.Clone(data), old[len(data):n]...)
			}
			return s.Store.Put(ctx, key, data)
		}
	})},
	{"writes stop at 1 MiB", "sizes", each(func(s *bent) {
		s.create = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			return s.Store.Create(ctx, key, data[:min(len(data), 1<<20)])
		}
	})},
	{"create keeps the slice", "buffers-kept", each(func(s *bent) {
		s.create, s.get = keepSlices(s, true)
	})},
	{"a cancelled put keeps the slice", "buffers-cancelled", each(func(s *bent) {
		s.put, s.get = keepSlices(s, false)
	})},
	{"put works in place", "buffers-changed", each(func(s *bent) {
		s.put = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			slices.Reverse(data)
			return s.Store.Put(ctx, key, data)
		}
	})},
	{"writes carry no time", "times", each(func(s *bent) {
		s.create = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			o, err := s.Store.Create(ctx, key, data)
			o.ModTime = time.Time{}
			return o, err
		}
	})},
	{"writes carry the time of the client's clock", "times", each(func(s *bent) {
		s.create = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			o, err := s.Store.Create(ctx, key, data)
			o.ModTime = time.Now()
			return o, err
		}
	})},
	{"put carries the time at which the handle was opened", "times", each(func(s *bent) {
		opened := clock().Add(-time.Minute)
		s.put = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			o, err := s.Store.Put(ctx, key, data)
			o.ModTime = opened
			return o, err
		}
	})},
}

// checkThenPut lets the first two Creates that have found the key free wait for each
// other before they put, so that both succeed.
func checkThenPut() func(s *bent) {
	meet, met := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(met) })
	return func(s *bent) {
		s.create = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			if s.has(ctx, key) {
				return s.Store.Create(ctx, key, data)
			}
			select {
			case meet <- struct{}{}:
				once()
			case <-meet:
			case <-met:
			case <-ctx.Done():
			}
			return s.Store.Put(ctx, key, data)
		}
	}
}

// halfFirst writes the first half of an object, waits until a Get has read it, and
// then puts the complete object.
func halfFirst() func(s *bent, first write) (write, read) {
	var mu sync.Mutex
	seen := make(chan struct{})
	return func(s *bent, first write) (write, read) {
		torn := func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			mu.Lock()
			o, err := first(ctx, key, data[:len(data)/2])
			mu.Unlock()
			if err != nil {
				return o, err
			}
			select {
			case <-seen:
			case <-ctx.Done():
			}
			return s.Store.Put(ctx, key, data)
		}
		get := func(ctx context.Context, key string, offset int64, p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			n, err := s.Store.Get(ctx, key, offset, p)
			select {
			case seen <- struct{}{}:
			default:
			}
			return n, err
		}
		return torn, get
	}
}

// keepSlices returns a write that stores nothing yet but keeps data, and a Get that
// stores it before it reads. If the write should not succeed, it waits for its
// context to end.
func keepSlices(s *bent, succeed bool) (write, read) {
	kept := make(map[string][]byte)
	keep := func(ctx context.Context, key string, data []byte) (backend.Object, error) {
		if _, limited := ctx.Deadline(); !limited && !succeed {
			return s.Store.Put(ctx, key, data)
		}
		kept[key] = data
		if succeed {
			return backend.Object{Key: key, Size: int64(len(data)), ModTime: clock()}, nil
		}
		<-ctx.Done()
		return backend.Object{}, ctx.Err()
	}
	get := func(ctx context.Context, key string, offset int64, p []byte) (int, error) {
		if data, ok := kept[key]; ok {
			_, _ = s.Store.Put(ctx, key, data)
		}
		return s.Store.Get(ctx, key, offset, p)
	}
	return keep, get
}

var brokenReads = []broken{
	{"get past the end returns nothing", "ranges", getReturns(backend.ErrRange, nil)},
	{"get that reaches the end returns EOF", "ranges", each(func(s *bent) {
		s.get = func(ctx context.Context, key string, offset int64, p []byte) (int, error) {
			n, err := s.Store.Get(ctx, key, offset, p)
			if err == nil && n < len(p) {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	})},
	{"get of an empty object is out of range", "ranges", each(func(s *bent) {
		s.get = func(ctx context.Context, key string, offset int64, p []byte) (int, error) {
			n, err := s.Store.Get(ctx, key, offset, p)
			if err == nil && n == 0 {
				err = backend.ErrRange
			}
			return n, err
		}
	})},
	{"get adds offset and length without care", "ranges", each(func(s *bent) {
		s.get = func(ctx context.Context, key string, offset int64, p []byte) (int, error) {
			if end := offset + int64(len(p)); end < offset {
				return 0, errors.New("bytes=" + "9223372036854775807-" + "-9223372036854775800")
			}
			return s.Store.Get(ctx, key, offset, p)
		}
	})},
	{"get of a missing object returns nothing", "untouched", getReturns(backend.ErrNotExist, nil)},
	{"get writes past the end of the slice", "buffers-changed", each(func(s *bent) {
		s.get = func(ctx context.Context, key string, offset int64, p []byte) (int, error) {
			n, err := s.Store.Get(ctx, key, offset, p[:cap(p)])
			return min(n, len(p)), err
		}
	})},
	{"get remembers what is missing", "read-after-write", each(func(s *bent) {
		missing := make(map[string]error)
		s.get = func(ctx context.Context, key string, offset int64, p []byte) (int, error) {
			if err := missing[key]; err != nil {
				return 0, err
			}
			n, err := s.Store.Get(ctx, key, offset, p)
			missing[key] = err
			return n, err
		}
	})},
	{"errors are bare", "errors", each(func(s *bent) {
		s.get = func(ctx context.Context, key string, offset int64, p []byte) (int, error) {
			n, err := s.Store.Get(ctx, key, offset, p)
			if errors.Is(err, backend.ErrNotExist) {
				err = backend.ErrNotExist
			}
			return n, err
		}
	})},
	{"errors do not name the store", "errors", each(func(s *bent) {
		s.create = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			o, err := s.Store.Create(ctx, key, data)
			if err != nil {
				err = &backend.Error{Op: "create", Key: key, Err: err}
			}
			return o, err
		}
	})},
}

// getReturns replaces one kind of error of Get by another error.
func getReturns(kind, instead error) func() func(s *bent) {
	return each(func(s *bent) {
		s.get = func(ctx context.Context, key string, offset int64, p []byte) (int, error) {
			n, err := s.Store.Get(ctx, key, offset, p)
			if errors.Is(err, kind) {
				err = instead
			}
			return n, err
		}
	})
}

var brokenLists = []broken{
	{"list sorts by names, not by bytes", "list-order", each(func(s *bent) {
		s.list = func(ctx context.Context, prefix, after string) listing {
			all := s.all(ctx, prefix)
			slices.SortFunc(all, func(a, b backend.Object) int {
				return slices.Compare(strings.Split(a.Key, "/"), strings.Split(b.Key, "/"))
			})
			return yieldAll(all)
		}
	})},
	{"list includes after", "list-prefix-after", each(func(s *bent) {
		s.list = func(ctx context.Context, prefix, after string) listing {
			return yieldAll(slices.DeleteFunc(s.all(ctx, prefix), func(o backend.Object) bool { return o.Key < after }))
		}
	})},
	{"list wants after to exist", "list-prefix-after", each(func(s *bent) {
		s.list = func(ctx context.Context, prefix, after string) listing {
			if after != "" && !s.has(ctx, after) {
				after = ""
			}
			return s.Store.List(ctx, prefix, after)
		}
	})},
	{"list takes a prefix for a directory", "list-prefix-after", each(func(s *bent) {
		s.list = func(ctx context.Context, prefix, after string) listing {
			if prefix != "" {
				prefix = strings.TrimSuffix(prefix, "/") + "/"
			}
			return s.Store.List(ctx, prefix, after)
		}
	})},
	{"list stops after 1,000 keys", "list-many", each(func(s *bent) {
		s.list = func(ctx context.Context, prefix, after string) listing {
			all := s.all(ctx, prefix)
			all = slices.DeleteFunc(all, func(o backend.Object) bool { return o.Key <= after })
			return yieldAll(all[:min(len(all), 1000)])
		}
	})},
	{"list pages by number", "list-many", each(func(s *bent) {
		s.list = func(ctx context.Context, prefix, after string) listing {
			return func(yield func(backend.Object, error) bool) {
				const size = 500
				for from := 0; ; from += size {
					all := s.all(ctx, prefix)
					page := all[min(from, len(all)):min(from+size, len(all))]
					for _, o := range page {
						if !yield(o, nil) {
							return
						}
					}
					if len(page) == 0 {
						return
					}
				}
			}
		}
	})},
	{"list goes on without its context", "list-many", each(func(s *bent) {
		s.list = func(ctx context.Context, prefix, after string) listing {
			return s.Store.List(context.WithoutCancel(ctx), prefix, after)
		}
	})},
	{"list is spent after one range", "list-again", each(func(s *bent) {
		s.list = func(ctx context.Context, prefix, after string) listing {
			return func(yield func(backend.Object, error) bool) {
				for o, err := range s.Store.List(ctx, prefix, after) {
					after = o.Key
					if !yield(o, err) {
						return
					}
				}
			}
		}
	})},
	{"list shows what was there some time ago", "list-after-write", func() func(s *bent) {
		var before []backend.Object
		return func(s *bent) {
			s.list = func(ctx context.Context, prefix, after string) listing {
				now := s.all(ctx, prefix)
				defer func() { before = now }()
				return yieldAll(before)
			}
		}
	}},
	{"list hides what looks like a temporary file", "keys-accepted", each(func(s *bent) {
		s.list = func(ctx context.Context, prefix, after string) listing {
			return yieldAll(slices.DeleteFunc(s.all(ctx, prefix), func(o backend.Object) bool {
				return strings.HasSuffix(o.Key, ".tmp")
			}))
		}
	})},
	{"list of nothing is an error", "untouched", each(func(s *bent) {
		s.list = func(ctx context.Context, prefix, after string) listing {
			return func(yield func(backend.Object, error) bool) {
				all := s.all(ctx, prefix)
				yieldAll(all)(yield)
				if len(all) == 0 {
					yield(backend.Object{}, backend.ErrNoStore)
				}
			}
		}
	})},
	{"list shows another namespace", "namespaces", each(func(s *bent) {
		s.list = func(ctx context.Context, prefix, after string) listing {
			var all []backend.Object
			for o, err := range s.bucket.Open().List(ctx, s.namespace, "") {
				if err != nil {
					break
				}
				_, o.Key, _ = strings.Cut(o.Key, "/")
				all = append(all, o)
			}
			return yieldAll(all)
		}
	})},
}

var brokenDeletes = []broken{
	{"delete of a missing key is an error", "delete", each(func(s *bent) {
		s.delete = func(ctx context.Context, keys ...string) error {
			for _, key := range keys {
				if !s.has(ctx, key) {
					return backend.ErrNotExist
				}
			}
			return s.Store.Delete(ctx, keys...)
		}
	})},
	{"delete takes keys for prefixes", "delete", each(func(s *bent) {
		s.delete = func(ctx context.Context, keys ...string) error {
			for _, key := range keys {
				for _, o := range s.all(ctx, key) {
					_ = s.Store.Delete(ctx, o.Key)
				}
			}
			return nil
		}
	})},
	{"delete forgets what does not fit into one batch", "delete-batch", each(func(s *bent) {
		s.delete = func(ctx context.Context, keys ...string) error {
			return s.Store.Delete(ctx, keys[:min(len(keys), 1000)]...)
		}
	})},
	{"delete stops at the first missing key", "delete-batch", each(func(s *bent) {
		s.delete = func(ctx context.Context, keys ...string) error {
			for _, key := range keys {
				if !s.has(ctx, key) {
					return nil
				}
				_ = s.Store.Delete(ctx, key)
			}
			return nil
		}
	})},
	{"delete sorts the caller's keys", "buffers-changed", each(func(s *bent) {
		s.delete = func(ctx context.Context, keys ...string) error {
			slices.Sort(keys)
			return s.Store.Delete(ctx, keys...)
		}
	})},
	{"delete does what it can before it refuses a key", "keys-refused", each(func(s *bent) {
		s.delete = func(ctx context.Context, keys ...string) error {
			var errs []error
			for _, key := range keys {
				errs = append(errs, s.Store.Delete(ctx, key))
			}
			return errors.Join(errs...)
		}
	})},
}

var brokenHandles = []broken{
	{"keys are folded to lower case", "keys-refused", each(func(s *bent) {
		s.create = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			return s.Store.Create(ctx, strings.ToLower(key), data)
		}
	})},
	{"a context that has ended is not looked at", "context-ended", each(func(s *bent) {
		s.put = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			return s.Store.Put(context.WithoutCancel(ctx), key, data)
		}
	})},
	{"a context's cause hides its error", "context-ended", each(func(s *bent) {
		s.delete = func(ctx context.Context, keys ...string) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return s.Store.Delete(ctx, keys...)
		}
	})},
	{"a context that has ended is reported, but too late", "context-ended", each(func(s *bent) {
		s.put = func(ctx context.Context, key string, data []byte) (backend.Object, error) {
			o, _ := s.Store.Put(context.WithoutCancel(ctx), key, data)
			return o, ctx.Err()
		}
	})},
	{"a closed handle still works", "closed", each(func(s *bent) {
		s.close = func() error { return nil }
	})},
	{"a second Close is an error", "closed", each(func(s *bent) {
		closed := false
		s.close = func() error {
			if closed {
				return backend.ErrClosed
			}
			closed = true
			return s.Store.Close()
		}
	})},
	{"Close closes the other handles", "close-other", func() func(s *bent) {
		var all []backend.Store
		return func(s *bent) {
			all = append(all, s.Store)
			s.close = func() error {
				for _, other := range all {
					_ = other.Close()
				}
				return nil
			}
		}
	}},
	{"each handle sees its own objects", "read-after-write", each(func(s *bent) {
		s.Store = mem.NewBucket(clock).Open()
	})},
}
