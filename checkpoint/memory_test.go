//go:build !race

// The race detector needs memory itself, and takes a minute and a half for this.

package checkpoint_test

import (
	"context"
	"encoding/binary"
	"io"
	"io/fs"
	"math/bits"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// endless yields size bytes, and keeps none of them. Of each 64 KiB, half are noise and
// half can be compressed. From time to time it calls a function.
type endless struct {
	fs.FileInfo
	size, pos int64
	every     int64
	call      func()
}

func (e *endless) Stat() (fs.FileInfo, error) { return e, nil }
func (e *endless) Size() int64                { return e.size }
func (e *endless) Close() error               { return nil }

func (e *endless) Read(p []byte) (int, error) {
	n := min(int64(len(p)), e.size-e.pos)
	if n == 0 {
		return 0, io.EOF
	}
	at := e.pos
	for p := p[:n]; len(p) > 0; {
		word := wordAt(uint64(at) &^ 7)
		if at&7 == 0 && len(p) >= 8 {
			binary.LittleEndian.PutUint64(p, word)
			p, at = p[8:], at+8
			continue
		}
		p[0] = byte(word >> (at & 7 * 8))
		p, at = p[1:], at+1
	}
	if (e.pos+n)/e.every != e.pos/e.every {
		e.call()
	}
	e.pos += n
	return int(n), nil
}

// wordAt returns the eight bytes at an offset.
func wordAt(at uint64) uint64 {
	if at&(32<<10) == 0 {
		return at >> 12
	}
	hi, lo := bits.Mul64(at^0x9e3779b97f4a7c15, 0xd1342543de82ef95)
	return hi ^ lo
}

// endlessFS has one file.
type endlessFS struct {
	fs.FS
	size, every int64
	call        func()
}

func (e endlessFS) Open(name string) (fs.File, error) {
	f, err := e.FS.Open(name)
	if err != nil || name == "." {
		return f, err
	}
	info, err := f.Stat()
	return &endless{FileInfo: info, size: e.size, every: e.every, call: e.call}, err
}

// forgetful is a store that does not keep segments. Its first uploads wait until as
// many are in progress as the sender allows.
type forgetful struct {
	backend.Store
	uploads int

	mu       sync.Mutex
	arrived  sync.Cond
	began    int
	underWay int
	most     int // the largest number of uploads in progress
	largest  int // the size of the largest upload, in bytes
}

func (f *forgetful) Put(ctx context.Context, key string, data []byte) (backend.Object, error) {
	if !strings.Contains(key, segments) {
		return f.Store.Put(ctx, key, data)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.began++
	f.underWay++
	f.most, f.largest = max(f.most, f.underWay), max(f.largest, len(data))
	f.arrived.Broadcast()
	for f.began < 20 && f.underWay < f.uploads {
		f.arrived.Wait()
	}
	f.underWay--
	return backend.Object{Key: key, Size: int64(len(data)), ModTime: time.Now()}, nil
}

// heap returns the number of bytes in use on the heap.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// allocated returns the number of bytes that were ever allocated.
func allocated() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.TotalAlloc)
}

const (
	// memoryIndex is what a byte of a state takes in the list of its chunks, at most: few
	// chunks are smaller than 10 KiB; each takes 52 bytes, 7 to 14 in the index, and 4 in its file.
	memoryIndex = 80.0 / (10 << 10)
	codecMemory = 8 << 20 // of a job, for as long as it lives
)

// However large a file is, a save of it needs memory only for what is under way, and for
// the index of its chunks.
func TestMemoryOfASaveIsBounded(t *testing.T) {
	const (
		size    = 256 << 20
		memory  = 32 << 20
		segment = memory / 16
		uploads = memory / 2 / segment
		index   = int64(size * memoryIndex)
		bound   = memory + index
	)
	before, most, samples := heap(), int64(0), 0
	source := endlessFS{FS: fstest.MapFS{"large": {Mode: 0o644}}, size: size, every: 8 << 20, call: func() {
		most = max(most, heap()-before)
		samples++
	}}
	store := &forgetful{Store: mem.NewBucket(time.Now).Open(), uploads: uploads}
	store.arrived.L = &store.mu
	job := newJob(t, store, checkpoint.Options{Memory: memory})
	t.Cleanup(func() { _ = job.Close(context.Background()) })
	task, err := job.Task("orders/7")
	if err != nil {
		t.Fatal(err)
	}
	o := claim(t, task)
	for _, what := range []string{"all is new", "nothing is new"} {
		most = 0
		start := allocated()
		made := commit(t, o, checkpoint.Snapshot{State: checkpoint.FS(source)})
		if made.Bytes != size {
			t.Fatalf("%d bytes", made.Bytes)
		}
		if most > bound {
			t.Errorf("%s: %d MiB were in use, want at most %d", what, most>>20, bound>>20)
		}
		if all := allocated() - start; all > 2*bound {
			t.Errorf("%s: %d MiB were allocated in all, want at most %d: memory must be reused", what, all>>20, 2*bound>>20)
		}
		if isNew := what == "all is new"; isNew != (made.NewBytes > size/3) {
			t.Errorf("%s: %d new bytes", what, made.NewBytes)
		}
		t.Logf("%s: %.1f MiB, want at most %.1f; %d MiB allocated in all", what, float64(most)/(1<<20), float64(bound)/(1<<20), (allocated()-start)>>20)
	}
	if samples < 2*size/(8<<20)-2 {
		t.Errorf("%d samples", samples)
	}
	if store.most != uploads || store.largest > segment {
		t.Errorf("%d segments in progress, of at most %d bytes", store.most, store.largest)
	}
	// An owner keeps only the index.
	if kept := heap() - before; kept > index+codecMemory+1<<20 {
		t.Errorf("%d MiB are kept", kept>>20)
	}
}

// A restore, too, needs memory only for what is under way and for the list of chunks: also where the
// ranges that it fetches have many sizes.
func TestMemoryOfARestoreIsBounded(t *testing.T) {
	const (
		size   = 192 << 20
		memory = 32 << 20
		bound  = memory/2 + 2*int64(size*memoryIndex) + 2<<20 // and where in the file each chunk lies
	)
	bucket := mem.NewBucket(time.Now)
	job := newJob(t, bucket.Open(), checkpoint.Options{Memory: memory})
	t.Cleanup(func() { _ = job.Close(context.Background()) })
	task, err := job.Task("orders/7")
	if err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{"large": {Mode: 0o644}}
	c, err := task.Save(t.Context(), checkpoint.Snapshot{State: checkpoint.FS(endlessFS{FS: files, size: size, every: size, call: func() {}})}, checkpoint.SaveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before, most, calls := heap(), int64(0), 0
	err = c.Restore(t.Context(), filepath.Join(tempDir(t), "state"), checkpoint.RestoreOptions{Progress: func(checkpoint.Progress) {
		if calls++; calls%4 == 0 {
			most = max(most, heap()-before)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MiB in %d samples, want at most %.1f", float64(most)/(1<<20), calls/4, float64(bound)/(1<<20))
	if most > bound || calls < 20 {
		t.Errorf("%d MiB were in use in %d samples, want at most %d", most>>20, calls/4, bound>>20)
	}
}

// The bound is one for all saves and restores of a job together.
func TestMemoryIsOfAllTogether(t *testing.T) {
	const (
		tasks  = 6
		size   = 48 << 20
		memory = 32 << 20
		bound  = memory + 2*tasks*int64(size*memoryIndex) // a restore has an index, and so has the owner
	)
	bucket := mem.NewBucket(time.Now)
	job := newJob(t, bucket.Open(), checkpoint.Options{Memory: memory})
	t.Cleanup(func() { _ = job.Close(context.Background()) })
	var mu sync.Mutex
	var most, before int64
	sample := func() {
		mu.Lock()
		defer mu.Unlock()
		stored := int64(0)
		for o, err := range bucket.Open().List(t.Context(), "", "") {
			if err != nil {
				t.Error(err)
			}
			stored += o.Size
		}
		most = max(most, heap()-before-stored)
	}
	source := endlessFS{FS: fstest.MapFS{"large": {Mode: 0o644}}, size: size, every: 4 << 20, call: sample}
	var owners []*checkpoint.Owner
	for i := range tasks {
		task, err := job.Task(strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		owners = append(owners, claim(t, task))
	}
	before = heap()
	all := func(do func(i int, o *checkpoint.Owner)) {
		var group sync.WaitGroup
		for i, o := range owners {
			group.Go(func() { do(i, o) })
		}
		group.Wait()
	}
	all(func(_ int, o *checkpoint.Owner) {
		if _, err := o.Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.FS(source)}); err != nil {
			t.Error(err)
		}
	})
	t.Logf("saves: %.1f MiB, want at most %.1f", float64(most)/(1<<20), float64(bound)/(1<<20))
	dir, every := tempDir(t), atomic.Int64{}
	all(func(i int, o *checkpoint.Owner) {
		c, err := o.Checkpoint(t.Context())
		if err == nil {
			err = c.Restore(t.Context(), filepath.Join(dir, strconv.Itoa(i)), checkpoint.RestoreOptions{Progress: func(checkpoint.Progress) {
				if every.Add(1)%16 == 0 {
					sample()
				}
			}})
		}
		if err != nil {
			t.Error(err)
		}
	})
	t.Logf("and restores: %.1f MiB, want at most %.1f", float64(most)/(1<<20), float64(bound)/(1<<20))
	if most > bound {
		t.Errorf("%d MiB were in use, want at most %d", most>>20, bound>>20)
	}
	for _, o := range owners {
		_ = o.Close(t.Context())
	}
}
