package holes

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A span is a range of a file.
type span struct {
	from, to int64
	hole     bool
}

// diskFile returns a new file of some size, without any data, on a file system that is known.
func diskFile(t *testing.T, size int64) *os.File {
	t.Helper()
	for _, dir := range []string{os.TempDir(), "."} {
		f, err := os.CreateTemp(dir, "holdfast-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = f.Close() // a test may have closed it
			if err := os.Remove(f.Name()); err != nil {
				t.Error(err)
			}
		})
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if of(t, f) != nil {
			return f
		}
	}
	t.Skip("neither temporary files nor the sources are on ext4, XFS or Btrfs: set TMPDIR to a directory that is")
	return nil
}

func of(t *testing.T, f *os.File) *Finder {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return Of(f, info)
}

func writeAt(t *testing.T, f *os.File, offset int64, n int) {
	t.Helper()
	data := make([]byte, n)
	for i := range data {
		data[i] = 1
	}
	if _, err := f.WriteAt(data, offset); err != nil {
		t.Fatal(err)
	}
}

// What is said of a file is so before its data is on the disk, and afterwards.
func TestHoles(t *testing.T) {
	const block, size = 64 << 10, 4 << 20 // a file system may make blocks of up to 64 KiB
	for _, c := range []struct {
		name string
		data []int64 // where blocks are written
		want []span
	}{
		{"no data", nil, []span{{0, size, true}}},
		{"at the beginning", []int64{0}, []span{{0, block, false}, {block, size, true}}},
		{"at the end", []int64{size - block}, []span{{0, size - block, true}, {size - block, size, false}}},
		{"in the middle", []int64{1 << 20, 2 << 20}, []span{
			{0, 1 << 20, true}, {1 << 20, 1<<20 + block, false}, {1<<20 + block, 2 << 20, true},
			{2 << 20, 2<<20 + block, false}, {2<<20 + block, size, true},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := diskFile(t, size)
			for _, offset := range c.data {
				writeAt(t, f, offset, block)
			}
			check := func(when string) {
				t.Helper()
				found := of(t, f)
				if found == nil {
					t.Fatalf("%s: no holes", when)
				}
				for _, s := range c.want {
					for _, at := range []int64{s.from, s.from + 1, (s.from + s.to) / 2, s.to - 1, s.from} {
						if n, hole := found.At(at); n != s.to-at || hole != s.hole {
							t.Errorf("%s: at %d: %d bytes, hole: %v, want %d, %v", when, at, n, hole, s.to-at, s.hole)
						}
					}
				}
			}
			check("in memory")
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			check("on the disk")
		})
	}
}

// A range of blocks that are reserved, and not written, may be called either; what is written
// there is data at once, also through a memory map.
func TestReservedBlocks(t *testing.T) {
	const size, at, n = 4 << 20, 1 << 20, 1 << 20
	f := diskFile(t, size)
	if err := unix.Fallocate(int(f.Fd()), 0, at, n); err != nil {
		t.Skip("this file system cannot reserve blocks")
	}
	data, err := unix.Mmap(int(f.Fd()), at, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(data); err != nil {
			t.Error(err)
		}
	}()
	data[n/2] = 1
	if _, hole := of(t, f).At(at + n/2); hole {
		t.Error("what was just written is called a hole")
	}
}

func TestFilesWithoutHoles(t *testing.T) {
	dense := diskFile(t, Least)
	writeAt(t, dense, 0, Least)
	small := diskFile(t, Least)
	if err := small.Truncate(Least - 1); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{dense, small} {
		if of(t, f) != nil {
			t.Errorf("%s has holes", filepath.Base(f.Name()))
		}
	}
}

// If the file system cannot tell any more, everything is data.
func TestClosedFile(t *testing.T) {
	f := diskFile(t, 4<<20)
	found := of(t, f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if n, hole := found.At(1 << 20); n != 3<<20 || hole {
		t.Errorf("%d bytes, hole: %v", n, hole)
	}
}

// A tmpfs tells of holes, and may be right; nobody has looked.
func TestUnknownFileSystem(t *testing.T) {
	f, err := os.CreateTemp("/dev/shm", "holdfast-test-")
	if err != nil {
		t.Skip("there is no file system in memory")
	}
	defer func() {
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			t.Error(err)
		}
	}()
	if err := f.Truncate(4 << 20); err != nil {
		t.Fatal(err)
	}
	if of(t, f) != nil {
		t.Error("its holes are believed")
	}
}
