//go:build !race

// The race detector takes memory of its own, and a minute and a half for this.

package checkpoint_test

import (
	"context"
	"encoding/binary"
	"io"
	"io/fs"
	"math/bits"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// endless yields size bytes that nobody keeps: of each 64 KiB, half are noise
// and half can be compressed. It calls every now and then, each so many bytes.
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

// forgetful is a store that keeps nothing of segments. Its first ones arrive as
// late as the sender lets them: when as many as may be are under way.
type forgetful struct {
	backend.Store
	uploads int

	mu       sync.Mutex
	arrived  sync.Cond
	began    int
	underWay int
	most     int // under way at once
	largest  int // bytes
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

// heap returns how many bytes are in use on the heap.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// allocated returns how many bytes were ever allocated.
func allocated() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.TotalAlloc)
}

// However large a file is, a save of it takes memory for its segments under way,
// its blocks and the index of its chunks, and for nothing else.
func TestMemoryOfASaveIsBounded(t *testing.T) {
	const (
		size        = 256 << 20
		segmentSize = 4 << 20
		uploads     = 2
		index       = size / (10 << 10) * 160 // a chunk is rarely smaller, and takes 60 bytes and what a map takes
		coders      = 8 << 20
	)
	blocks := int64(runtime.GOMAXPROCS(0)+2) * 2 << 20 // with what each is compressed to
	bound := int64((uploads+1)*segmentSize+index+coders) + blocks
	if bound > size/4 {
		t.Fatalf("a bound of %d bytes shows nothing", bound)
	}

	before, most, samples := heap(), int64(0), 0
	source := endlessFS{FS: fstest.MapFS{"large": {Mode: 0o644}}, size: size, every: 8 << 20, call: func() {
		most = max(most, heap()-before)
		samples++
	}}
	store := &forgetful{Store: mem.NewBucket(time.Now).Open(), uploads: uploads}
	store.arrived.L = &store.mu
	job := newJob(t, store, checkpoint.Options{SegmentSize: segmentSize, Uploads: uploads})
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
			t.Errorf("%s: %d MiB were allocated in all, want at most %d: memory is used again", what, all>>20, 2*bound>>20)
		}
		if isNew := what == "all is new"; isNew != (made.NewBytes > size/3) {
			t.Errorf("%s: %d new bytes", what, made.NewBytes)
		}
		t.Logf("%s: %.1f MiB, want at most %.1f; %d MiB allocated in all", what, float64(most)/(1<<20), float64(bound)/(1<<20), (allocated()-start)>>20)
	}
	if samples < 2*size/(8<<20)-2 {
		t.Errorf("%d samples", samples)
	}
	if store.most != uploads || store.largest > segmentSize {
		t.Errorf("%d segments under way, of %d bytes at most", store.most, store.largest)
	}
	// An owner keeps the index, and nothing else.
	if kept := heap() - before; kept > index+coders+1<<20 {
		t.Errorf("%d MiB are kept", kept>>20)
	}
}
