package checkpoint_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A bytesFS hides that its files are the operating system's, so they are read byte by byte.
type bytesFS struct{ fs.FS }

func (b bytesFS) Open(name string) (fs.File, error) {
	f, err := b.FS.Open(name)
	if _, isDir := f.(fs.ReadDirFile); err != nil || isDir && name == "." {
		return f, err
	}
	return struct{ fs.File }{f}, nil
}

// drawSparse makes a file of data and holes, some of them zeros that were written.
func drawSparse(t *rapid.T, path string) {
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	size := rapid.OneOf(rapid.Int64Range(1<<20, 4<<20), rapid.SampledFrom([]int64{1 << 20, 2 << 20, 2<<20 + 1, 3<<20 - 1})).Draw(t, "size")
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for range rapid.IntRange(0, 6).Draw(t, "writes") {
		at := rapid.OneOf(rapid.Int64Range(0, size-1), rapid.Map(rapid.Int64Range(0, (size-1)>>12), func(n int64) int64 { return n << 12 })).Draw(t, "at")
		n := rapid.OneOf(rapid.IntRange(1, 100), rapid.IntRange(1, 200<<10), rapid.Just(1200<<10)).Draw(t, "bytes")
		data := bytesOf(rapid.Uint64Range(0, 1<<20).Draw(t, "seed"), int(min(int64(n), size-at)))
		if _, err := f.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// A file with holes is stored as it would be if each byte were read, and restored as it was,
// with the file system's blocks where there is data, alone.
func TestHolesAreWhatTheyReadAs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir := diskDir(t)
		drawSparse(t, filepath.Join(dir, "one"))
		drawSparse(t, filepath.Join(dir, "two"))
		bucket := mem.NewBucket(time.Now)
		o := claim(t, openTask(t, bucket, checkpoint.Options{Memory: 1 << 20}))
		skipped := commit(t, o, checkpoint.Snapshot{State: checkpoint.Dir(dir)})
		read := commit(t, o, checkpoint.Snapshot{State: checkpoint.FS(bytesFS{os.DirFS(dir)}).Reread()})
		s := takeInventory(t, bucket)
		same := func(a, b format.Chunk) bool { return a.Hash == b.Hash && a.Size == b.Size } // it may have been stored again
		if a, b := s.account(t, skipped.Seq).data, s.account(t, read.Seq).data; !slices.EqualFunc(a, b, same) {
			t.Fatalf("%d chunks, want %d: other chunks than of a file that was read", len(a), len(b))
		}
		target := filepath.Join(diskDir(t), "state")
		for range 2 { // fetched first, and then taken from the old state
			if err := skipped.Restore(t.Context(), target, checkpoint.RestoreOptions{Replace: true}); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"one", "two"} {
				wantSameFile(t, filepath.Join(target, name), filepath.Join(dir, name))
			}
		}
		wantSameReads(t, skipped, dir)
	})
}

func wantSameFile(t tester, got, want string) {
	t.Helper()
	a, err := os.ReadFile(got)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Fatalf("%s is not what was saved", filepath.Base(got))
	}
	// The chunks in which data begins and ends are written as a whole.
	const more = 6 * 2 * (32 << 10) / 512
	if a, b := blocks(t, got), blocks(t, want); a > b+more {
		t.Errorf("%s takes %d blocks, and took %d", filepath.Base(got), a, b)
	}
}

func blocks(t tester, path string) int64 {
	t.Helper()
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err != nil {
		t.Fatal(err)
	}
	return s.Blocks
}

func wantSameReads(t tester, c *checkpoint.Checkpoint, dir string) {
	t.Helper()
	state, err := c.FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		got, err := fs.ReadFile(state, name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s reads otherwise than it was saved", name)
		}
	}
}

// A file that is mostly a hole takes as long as its data, and memory for that: reading this one
// would take minutes.
func TestLongHole(t *testing.T) {
	const size = 64 << 30
	dir := diskDir(t)
	path := filepath.Join(dir, "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	data := noise(100 << 10)
	for _, at := range []int64{0, size / 2, size - int64(len(data))} {
		if _, err := f.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	bucket := mem.NewBucket(time.Now)
	o := claim(t, openTask(t, bucket, checkpoint.Options{Memory: 1 << 20}))
	c := commit(t, o, checkpoint.Snapshot{State: checkpoint.Dir(dir)})
	if c.Bytes != size || c.NewBytes > 200<<10 {
		t.Errorf("%d bytes, of which %d are stored", c.Bytes, c.NewBytes)
	}
	if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o644); err != nil { // so that another save has to look at the list
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	var again *checkpoint.Checkpoint
	if took := allocatedBy(func() { again = commit(t, o, checkpoint.Snapshot{State: checkpoint.Dir(dir)}) }); took > 128<<20 || again.NewBytes > 4<<10 {
		t.Errorf("the save after a touch allocates %d bytes, and stores %d", took, again.NewBytes)
	}
	target := filepath.Join(diskDir(t), "state")
	for range 2 {
		if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{Replace: true}); err != nil {
			t.Fatal(err)
		}
	}
	back, err := os.Open(filepath.Join(target, "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	got := make([]byte, len(data))
	for _, at := range []int64{0, size / 2, size - int64(len(data))} {
		if _, err := back.ReadAt(got, at); err != nil || !bytes.Equal(got, data) {
			t.Errorf("at %d there is something else, %v", at, err)
		}
	}
}

func TestFileThatIsTooLong(t *testing.T) {
	dir := diskDir(t)
	if err := os.WriteFile(filepath.Join(dir, "endless"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "endless"), 3<<40); err != nil {
		t.Fatal(err)
	}
	_, err := claim(t, newTask(t)).Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.Dir(dir)})
	if err == nil || !strings.Contains(err.Error(), "endless") || !strings.Contains(err.Error(), "at most 2199023255552") {
		t.Errorf("err = %v", err)
	}
}

// What could not be restored is not saved: the chunks of a file that has no such size, too.
func TestTooManyChunks(t *testing.T) {
	pattern := bytes.Repeat(noise(1<<10), 1<<10)
	for _, c := range []struct {
		name  string
		state checkpoint.Source
	}{
		{"a stream", checkpoint.Stream("endless", bytes.NewReader(pattern))},
		{"a file", checkpoint.FS(fstest.MapFS{"endless": {Data: pattern, Mode: 0o644}})},
	} {
		t.Run(c.name, func(t *testing.T) {
			job := newJob(t, mem.NewBucket(time.Now).Open(), checkpoint.Options{})
			checkpoint.SetMaxChunks(job, 10)
			task, err := job.Task("orders/7")
			if err != nil {
				t.Fatal(err)
			}
			_, err = claim(t, task).Commit(t.Context(), checkpoint.Snapshot{State: c.state})
			if err == nil || !strings.Contains(err.Error(), "endless") || !strings.Contains(err.Error(), "more than 10 chunks") {
				t.Errorf("err = %v", err)
			}
		})
	}
}

// A write into a hole that was passed over is seen.
func TestWriteIntoAHole(t *testing.T) {
	dir := diskDir(t)
	for _, name := range []string{"a", "b"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(8<<20), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	var once sync.Once
	progress := func(p checkpoint.Progress) {
		if p.Files == 0 {
			return
		}
		once.Do(func() {
			f, err := os.OpenFile(filepath.Join(dir, "a"), os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte("x"), 4<<20)
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	_, err := claim(t, newTask(t)).Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.Dir(dir), Progress: progress})
	if !errors.Is(err, checkpoint.ErrChanged) {
		t.Errorf("err = %v, want ErrChanged", err)
	}
}

func allocatedBy(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
