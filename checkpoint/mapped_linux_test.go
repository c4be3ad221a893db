package checkpoint_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A mapping is a file to which a program writes through a shared memory map, as LMDB,
// bbolt and SQLite do.
type mapping struct {
	t    tester
	data []byte
}

func mapFile(t tester, path string) *mapping {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	data, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(data); err != nil {
			t.Error(err)
		}
	})
	return &mapping{t, data}
}

// store writes a byte, without a system call.
func (m *mapping) store(offset int, b byte) { m.data[offset] = b }

// msync makes the writes durable, as a program does.
func (m *mapping) msync(flags int) {
	m.t.Helper()
	if err := unix.Msync(m.data, flags); err != nil {
		m.t.Fatal(err)
	}
}

// waitUntilKnown waits until a save would rely on the times of a file, if nothing
// else prevented that.
func waitUntilKnown(t tester, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix())
	time.Sleep(time.Until(changed.Add(150 * time.Millisecond)))
}

// everyKindOfMemory calls do with a directory on the disk, and with one on tmpfs,
// where the kernel never protects pages from writing.
func everyKindOfMemory(t *testing.T, do func(t *testing.T, dir string)) {
	t.Run("disk", func(t *testing.T) { do(t, t.TempDir()) })
	t.Run("tmpfs", func(t *testing.T) { do(t, tmpfs(t)) })
}

func tmpfs(t tester) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "holdfast-test-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A write to a page that was dirty at the previous save leaves no trace in the file's
// times. The second checkpoint still has the new bytes.
func TestWriteThroughAMapToADirtyPage(t *testing.T) {
	for name, sync := range map[string]func(*mapping){
		"left alone": func(*mapping) {},
		"msync":      func(m *mapping) { m.msync(syscall.MS_SYNC) },
	} {
		t.Run(name, func(t *testing.T) {
			everyKindOfMemory(t, func(t *testing.T, dir string) {
				path := filepath.Join(dir, "data.mdb")
				if err := os.WriteFile(path, make([]byte, 1<<20), 0o644); err != nil {
					t.Fatal(err)
				}
				m, o := mapFile(t, path), claim(t, newTask(t))
				for n := range byte(4) {
					m.store(5000, n)
					if n != 1 { // otherwise it is written at once, as the last was
						waitUntilKnown(t, path)
					}
					made := commit(t, o, checkpoint.Snapshot{State: checkpoint.Dir(dir)})
					wantFile(t, made, "data.mdb", m.data)
					m.store(5000, n+100)
					sync(m)
					made = commit(t, o, checkpoint.Snapshot{State: checkpoint.Dir(dir)})
					wantFile(t, made, "data.mdb", m.data)
				}
			})
		})
	}
}

func wantFile(t tester, c *checkpoint.Checkpoint, name string, want []byte) {
	t.Helper()
	state, err := c.FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := fs.ReadFile(state, name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("checkpoint %d has other bytes in %s", c.Seq, name)
	}
}

// Where pages are never protected from writing, every save reads every file. On a
// disk it does not.
func TestFilesInMemoryAreReadEachTime(t *testing.T) {
	everyKindOfMemory(t, func(t *testing.T, dir string) {
		state := &openedFS{FS: &agedFS{FS: os.DirFS(dir)}}
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		o := claim(t, newTask(t))
		commit(t, o, checkpoint.Snapshot{State: checkpoint.FS(state)})
		state.take()
		commit(t, o, checkpoint.Snapshot{State: checkpoint.FS(state)})
		if got, want := len(state.take()), map[bool]int{false: 1}[isDisk(t, dir)]; got != want {
			t.Errorf("%d files opened, want %d", got, want)
		}
	})
}

// A write through a map during a save, to a page that was dirty before, makes the
// save fail, whether or not the page has been read yet.
func TestWriteThroughAMapWhileItIsRead(t *testing.T) {
	for name, offset := range map[string]int{"read already": 0, "yet to be read": 200 << 10} {
		t.Run(name, func(t *testing.T) {
			l := newLive(t)
			l.write("f", make([]byte, 300<<10))
			m := mapFile(t, l.path("f"))
			m.store(offset, 1)
			settle(t, l.path("f"))
			state := readHookFS{l.opened.FS, func() { m.store(offset, 2) }}
			o := claim(t, newTask(t))
			_, err := o.Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.FS(state)})
			if want := "f: changed while it was saved: it was written to"; !errors.Is(err, checkpoint.ErrChanged) || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("err = %v\nwant  %s...", err, want)
			}
			settle(t, l.path("f"))
			l.wantBack(commit(t, o, l.snapshot()))
			m.store(offset, 3)
			l.wantBack(commit(t, o, l.snapshot()))
		})
	}
}

// A readHookFS calls during when the first bytes of a file have been read.
type readHookFS struct {
	fs.FS
	during func()
}

func (r readHookFS) Open(name string) (fs.File, error) {
	f, err := r.FS.Open(name)
	if conn, ok := f.(syscall.Conn); ok && err == nil {
		return struct {
			*halfway
			syscall.Conn
		}{&halfway{f, r.during}, conn}, nil
	}
	return f, err
}

func (r readHookFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(r.FS, name) }

// A restored file is like any other: its times are relied on only after a save has
// read it with its pages protected.
func TestWriteThroughAMapAfterAResume(t *testing.T) {
	everyKindOfMemory(t, func(t *testing.T, dir string) {
		dir = filepath.Join(dir, "state")
		path := filepath.Join(dir, "data.mdb")
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, make([]byte, 100<<10), 0o644)); err != nil {
			t.Fatal(err)
		}
		task := newTask(t)
		state := checkpoint.Snapshot{State: checkpoint.Dir(dir)}
		commit(t, claim(t, task), state)
		for n := range byte(2) { // in a directory that is replaced, with pages in the cache
			o := claim(t, task)
			if _, err := o.Resume(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			m := mapFile(t, path)
			m.store(5000, 3*n+1)
			waitUntilKnown(t, path)
			wantFile(t, commit(t, o, state), "data.mdb", m.data)
			m.store(5000, 3*n+2)
			wantFile(t, commit(t, o, state), "data.mdb", m.data)
			m.store(5000, 3*n+3)
			wantFile(t, commit(t, o, state), "data.mdb", m.data)
		}
	})
}

// Whatever is written through maps, synced or not, each checkpoint contains it.
func TestWritesThroughMaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLive(t)
		var maps []*mapping
		for i, size := range []int{4 << 10, 100 << 10, 300 << 10} {
			name := fmt.Sprint(i)
			l.write(name, bytesOf(uint64(i), size))
			maps = append(maps, mapFile(t, l.path(name)))
		}
		o := claim(t, newTask(t))
		aMap := func(t *rapid.T) *mapping { return rapid.SampledFrom(maps).Draw(t, "map") }
		t.Repeat(map[string]func(*rapid.T){
			"store": func(t *rapid.T) {
				m := aMap(t)
				m.store(rapid.IntRange(0, len(m.data)-1).Draw(t, "offset"), rapid.Byte().Draw(t, "byte"))
			},
			"store on one page": func(t *rapid.T) { aMap(t).store(1, rapid.Byte().Draw(t, "byte")) },
			"msync":             func(t *rapid.T) { aMap(t).msync(syscall.MS_SYNC) },
			"begin to msync":    func(t *rapid.T) { aMap(t).msync(syscall.MS_ASYNC) },
			"commit": func(*rapid.T) {
				l.wantBack(commit(l, o, l.snapshot()))
				for i := range maps {
					settle(l, l.path(fmt.Sprint(i)))
				}
			},
		})
		l.wantBack(commit(t, o, l.snapshot()))
	})
}
