package checkpoint_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A live state is a directory whose files seem old. It records which files are
// opened.
type live struct {
	tester
	dir    string
	opened openedFS
}

func newLive(t tester) *live {
	l := &live{tester: t, dir: diskDir(t)}
	l.opened.FS = &agedFS{FS: os.DirFS(l.dir)}
	return l
}

func (l *live) source() checkpoint.Source { return checkpoint.FS(&l.opened) }

func (l *live) snapshot() checkpoint.Snapshot { return checkpoint.Snapshot{State: l.source()} }

func (l *live) path(name string) string { return filepath.Join(l.dir, filepath.FromSlash(name)) }

func (l *live) write(name string, data []byte) {
	l.Helper()
	err := os.MkdirAll(filepath.Dir(l.path(name)), 0o755)
	if err == nil {
		err = os.WriteFile(l.path(name), data, 0o644)
	}
	l.must(err)
}

// writeAt writes into an existing file at an offset, or at its end if the offset is
// negative.
func (l *live) writeAt(name string, offset int64, data []byte) {
	l.Helper()
	f, err := os.OpenFile(l.path(name), os.O_WRONLY, 0)
	l.must(err)
	if offset < 0 {
		offset, err = f.Seek(0, io.SeekEnd)
		l.must(err)
	}
	_, err = f.WriteAt(data, offset)
	l.must(errors.Join(err, f.Close()))
}

func (l *live) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// saved makes sure that everything changed from now on has other times than what was
// saved.
func (l *live) saved() {
	settle(l.tester, l.dir)
	l.opened.take()
}

func (l *live) wantOpened(want ...string) {
	l.Helper()
	if got := l.opened.take(); !slices.Equal(got, want) {
		l.Errorf("opened: %q, want %q", got, want)
	}
}

// wantBack checks that a checkpoint gives back the live state.
func (l *live) wantBack(c *checkpoint.Checkpoint) {
	l.Helper()
	state, err := c.FS(l.Context())
	l.must(err)
	if got, want := digest(l.tester, state), digest(l.tester, os.DirFS(l.dir)); got != want {
		l.Errorf("checkpoint %d is\n%s\nwant\n%s", c.Seq, got, want)
	}
	l.opened.take()
}

// A commit sends little more than what has changed.
func TestOnlyWhatIsNewIsStored(t *testing.T) {
	const list = 12 << 10 // two pieces of tables, and one of the list of files
	for _, c := range []struct {
		name   string
		change func(*live)
		bound  int64 // the largest number of new bytes
		opened []string
	}{
		{"a file copied", func(l *live) {
			data, err := os.ReadFile(l.path("d/large"))
			l.must(err)
			l.write("d/copy", data)
		}, list, []string{"d/copy"}},
		{"a file renamed", func(l *live) { l.must(os.Rename(l.path("d/large"), l.path("renamed"))) }, list, []string{"renamed"}},
		{"a directory renamed", func(l *live) { l.must(os.Rename(l.path("d"), l.path("e"))) }, list, []string{"e/large", "e/small"}},
		{"other permissions", func(l *live) { l.must(os.Chmod(l.path("d/large"), 0o600)) }, list, []string{"d/large"}},
		{"another time", func(l *live) { l.must(os.Chtimes(l.path("d/large"), time.Now(), time.Unix(1, 0))) }, list, []string{"d/large"}},
		{"the same data again", func(l *live) {
			data, err := os.ReadFile(l.path("d/large"))
			l.must(err)
			l.write("d/large", data)
		}, list, []string{"d/large"}},
		{"a file removed", func(l *live) { l.must(os.Remove(l.path("d/large"))) }, list, nil},
		{"a link made", func(l *live) { l.must(os.Symlink("large", l.path("d/link"))) }, list, nil},
		{"1 KiB appended", func(l *live) { l.writeAt("d/large", -1, bytesOf(3, 1<<10)) }, list + 64<<10 + 1<<10, []string{"d/large"}},
		{"a page written", func(l *live) { l.writeAt("d/large", 77<<14, bytesOf(3, 16<<10)) }, list + 4*16<<10, []string{"d/large"}},
		{"10 bytes put in at the beginning", func(l *live) {
			data, err := os.ReadFile(l.path("d/large"))
			l.must(err)
			l.write("d/large", append([]byte("0123456789"), data...))
		}, list + 64<<10, []string{"d/large"}},
		{"cut short", func(l *live) { l.must(os.Truncate(l.path("d/large"), 1<<20+1)) }, list + 64<<10, []string{"d/large"}},
		{"20 MiB of nothing", func(l *live) { l.must(os.Truncate(l.path("d/large"), 22<<20)) }, list + 2*64<<10, []string{"d/large"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, bucket := newLive(t), mem.NewBucket(time.Now)
			l.write("d/large", bytesOf(11, 2<<20)) // mostly noise
			l.write("d/small", bytesOf(12, 3<<10))
			for i := range 20 {
				l.write(fmt.Sprint("f/", i), bytesOf(uint64(20+i), 20<<10))
			}
			job, task := jobOf(t, bucket, checkpoint.Options{Memory: 16 << 20})
			o := claim(t, task)
			first := commit(t, o, l.snapshot())
			if first.NewBytes < 2<<20 {
				t.Fatalf("the first commit stored %d bytes", first.NewBytes)
			}
			l.saved()
			before := job.Stats()
			c.change(l)
			made := commit(t, o, l.snapshot())
			l.wantOpened(c.opened...)
			after := job.Stats()
			sent := after.Put.Bytes - before.Put.Bytes
			if m := manifestOf(t, bucket, made.Seq); sent+int64(len(m.Checkpoint.Content.Inline)) != made.NewBytes {
				t.Errorf("%d bytes sent, and %d inline; it says %d", sent, len(m.Checkpoint.Content.Inline), made.NewBytes)
			}
			if made.NewBytes > c.bound || made.NewBytes == 0 {
				t.Errorf("%d new bytes, want at most %d", made.NewBytes, c.bound)
			}
			if create := after.Create.Bytes - before.Create.Bytes; create > made.NewBytes*4/3+4<<10 {
				t.Errorf("a manifest of %d bytes for %d new ones", create, made.NewBytes)
			}
			l.wantBack(made)
			t.Logf("%d new bytes", made.NewBytes)
		})
	}
}

func manifestOf(t tester, b *mem.Bucket, seq uint64) *format.Manifest {
	t.Helper()
	return takeInventory(t, b).manifest(t, seq)
}

// Scattered pages, 1 % of a state, are overwritten. At most 4 times as much is sent.
func TestScatteredPages(t *testing.T) {
	l := newLive(t)
	const files, size, pages = 8, 1 << 20, 5 // pages of 16 KiB are 1 % of 8 MiB
	for i := range files {
		l.write(fmt.Sprint(i), noise(size+i))
	}
	_, task := jobOf(t, mem.NewBucket(time.Now), checkpoint.Options{})
	o := claim(t, task)
	commit(t, o, l.snapshot())
	l.saved()
	for i := range pages {
		l.writeAt(fmt.Sprint(i%files), int64(i*11)<<14, noise(16<<10 + i)[:16<<10])
	}
	made := commit(t, o, l.snapshot())
	if limit := int64(4 * pages * 16 << 10); made.NewBytes > limit {
		t.Errorf("%d new bytes, want at most %d", made.NewBytes, limit)
	}
	l.wantBack(made)
	t.Logf("%d new bytes for %d", made.NewBytes, pages*16<<10)
}

// If nothing has changed, an owner sends one request, and a process without cached
// state four. Neither opens a file.
func TestNothingChanged(t *testing.T) { inWorld(t, nothingChanged) }

func nothingChanged(w *world) {
	l := newLive(w)
	l.write("a", noise(300<<10))
	l.write("d/b", noise(30<<10))
	l.write("d/empty", nil)
	l.must(os.Symlink("a", l.path("link")))
	job, task := jobOf(w, w.bucket, checkpoint.Options{Memory: 1 << 20})
	o := claim(w, task)
	commit(w, o, l.snapshot())
	l.wantOpened("a", "d/b", "d/empty")
	l.saved()
	synctest.Wait() // until what others may have left is collected, which is done once
	for range 3 {
		before := job.Stats()
		made := commit(w, o, l.snapshot())
		if after := job.Stats(); requests(before, after) != 1 || after.Create.Calls-before.Create.Calls != 1 {
			w.Errorf("an owner: %+v, before %+v", after, before)
		}
		l.wantOpened()
		if made.NewBytes != 0 {
			w.Errorf("%d new bytes", made.NewBytes)
		}
		l.wantBack(made)
	}
	if err := o.Release(w.Context()); err != nil {
		w.Fatal(err)
	}
	for range 3 {
		job, task := jobOf(w, w.bucket, checkpoint.Options{Memory: 1 << 20})
		made, err := task.Save(w.Context(), l.snapshot(), checkpoint.SaveOptions{})
		if err != nil {
			w.Fatal(err)
		}
		if u := job.Stats(); requests(backend.Stats{}, u) != 4 || u.Put.Calls != 0 {
			w.Errorf("a save: %+v", u)
		}
		l.wantOpened()
		if made.NewBytes != 0 {
			w.Errorf("%d new bytes", made.NewBytes)
		}
		l.wantBack(made)
	}
}

// A save that retires a checkpoint whose data it needs itself reads the manifest of
// that checkpoint, and no other.
func TestNothingChangedAndOneIsRetired(t *testing.T) {
	l, bucket := newLive(t), mem.NewBucket(time.Now)
	l.write("a", noise(300<<10))
	opts := checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: 5}}
	for n := range 10 {
		job, task := jobOf(t, bucket, opts)
		if _, err := task.Save(t.Context(), l.snapshot(), checkpoint.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		want := int64(4)
		if n >= 5 {
			want++
		}
		if u := job.Stats(); n > 1 && requests(backend.Stats{}, u) != want { // the first saves test the store
			t.Errorf("save %d: %+v, want %d requests", n, u, want)
		}
	}
}

// Only files that were changed are opened, however small they are and wherever their
// data is stored; or all of them, if that is asked for.
func TestWhatIsOpened(t *testing.T) {
	l := newLive(t)
	for _, name := range []string{"a", "b", "d/a", "d/b", "e"} {
		l.write(name, []byte("small, so that it is inline: "+name))
	}
	_, task := jobOf(t, mem.NewBucket(time.Now), checkpoint.Options{})
	o := claim(t, task)
	commit(t, o, l.snapshot())
	l.saved()
	l.write("d/a", []byte("changed"))
	l.wantBack(commit(t, o, l.snapshot()))
	l.saved()

	l.write("b", []byte("changed"))
	commit(t, o, l.snapshot())
	l.wantOpened("b")

	l.must(os.Rename(l.path("b"), l.path("c")))
	l.must(os.Remove(l.path("e")))
	l.must(os.Chtimes(l.path("."), time.Unix(1, 0), time.Unix(1, 0)))
	l.wantBack(commit(t, o, l.snapshot()))

	commit(t, o, checkpoint.Snapshot{State: l.source().Reread()})
	l.wantOpened("a", "c", "d/a", "d/b")
	commit(t, o, checkpoint.Snapshot{State: l.source().Reread()})
	l.wantOpened("a", "c", "d/a", "d/b")
}

// A file that was declared immutable is not opened, whatever its times say, whether
// it is stored inline or in a segment.
func TestImmutableFilesAreNotOpened(t *testing.T) {
	l, bucket := newLive(t), mem.NewBucket(time.Now)
	l.write("db/000001.sst", noise(200<<10))
	l.write("db/000002.sst", noise(100))
	l.write("db/CURRENT", []byte("1"))
	source := func() checkpoint.Snapshot {
		return checkpoint.Snapshot{State: l.source().Immutable("*.sst")}
	}
	_, task := jobOf(t, bucket, checkpoint.Options{Memory: 1 << 20})
	o := claim(t, task)
	commit(t, o, source())
	l.wantOpened("db/000001.sst", "db/000002.sst", "db/CURRENT")
	touch := func() {
		l.saved()
		l.must(os.Link(l.path("db/000001.sst"), filepath.Join(t.TempDir(), "link"))) // this moves its change time
		l.must(os.Chtimes(l.path("db/000002.sst"), time.Unix(1, 0), time.Unix(1, 0)))
		data, err := os.ReadFile(l.path("db/000001.sst"))
		l.must(err)
		l.must(os.Remove(l.path("db/000001.sst")))
		l.write("db/000001.sst", data) // another copy
		l.write("db/CURRENT", []byte("2"))
	}
	touch()
	made := commit(t, o, source())
	l.wantOpened("db/CURRENT")
	l.wantBack(made)

	touch()
	l.write("db/000003.sst", noise(300))
	made = commit(t, o, source())
	l.wantOpened("db/000003.sst", "db/CURRENT")
	l.wantBack(made)

	touch()
	job, task := jobOf(t, bucket, checkpoint.Options{Memory: 1 << 20}) // a process without cached state
	made, err := task.Save(t.Context(), source(), checkpoint.SaveOptions{Fence: true})
	l.must(err)
	l.wantOpened("db/CURRENT")
	l.wantBack(made)
	if sent := job.Stats().Put.Bytes; sent > 16<<10 {
		t.Errorf("%d bytes sent", sent)
	}

	l.write("db/000002.sst", noise(101)) // breaks the promise, and is noticed by its size
	made, err = task.Save(t.Context(), source(), checkpoint.SaveOptions{})
	l.must(err)
	l.wantOpened("db/000002.sst")
	l.wantBack(made)
}

// A file that changed a moment before a save may change once more without getting
// another time. So the next save opens it. Where times are whole seconds, a moment is
// two seconds.
func TestFileOfTheSameTickIsOpenedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		age    time.Duration // at the first save, which is at a whole second
		opened bool          // by the next save
	}{
		"just now":                     {0, true},
		"in the future":                {-time.Hour, true},
		"99.9 ms ago":                  {99900 * time.Microsecond, true},
		"100 ms ago":                   {100 * time.Millisecond, true},
		"100.1 ms ago":                 {100100 * time.Microsecond, false},
		"a whole second ago":           {time.Second, true},
		"two whole seconds ago":        {2 * time.Second, true},
		"three whole seconds ago":      {3 * time.Second, false},
		"an hour ago":                  {time.Hour, false},
		"fifty years ago, before 1970": {50 * 365 * 24 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				changed := time.Now().Add(-c.age)
				file := &fstest.MapFile{
					Data: []byte("one"), Mode: 0o644, ModTime: changed,
					Sys: &syscall.Stat_t{Ino: 7, Ctim: syscall.NsecToTimespec(changed.UnixNano())},
				}
				state := &openedFS{FS: asIfOnDisk(w, fstest.MapFS{"f": file})}
				task, job, _ := w.process()
				o := claim(w, task)
				commit(w, o, checkpoint.Snapshot{State: checkpoint.FS(state)})
				time.Sleep(10 * time.Minute)
				state.take()
				if c.opened {
					file.Data = []byte("two") // the same size and time
				}
				before := job.Stats()
				made := commit(w, o, checkpoint.Snapshot{State: checkpoint.FS(state)})
				if got := len(state.take()) > 0; got != c.opened {
					t.Errorf("it was opened: %v, want %v", got, c.opened)
				}
				if n := requests(before, job.Stats()); n != 1 {
					t.Errorf("%d requests", n)
				}
				fsys, err := made.FS(w.Context())
				if err != nil {
					t.Fatal(err)
				}
				if data, err := fs.ReadFile(fsys, "f"); err != nil || string(data) != string(file.Data) {
					t.Errorf("it is %q, %v", data, err)
				}
				synctest.Wait()
				commit(w, o, checkpoint.Snapshot{State: checkpoint.FS(state)}) // now its times are relied on
				if got := state.take(); len(got) > 0 && changed.Before(time.Now()) {
					t.Errorf("it was opened once more")
				}
			})
		})
	}
}

// A change that the operating system reports in any way is noticed.
func TestEveryTraceOfAChangeIsSeen(t *testing.T) {
	old := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, change := range map[string]func(f *fstest.MapFile, s *syscall.Stat_t){
		"size":        func(f *fstest.MapFile, _ *syscall.Stat_t) { f.Data = []byte("another") },
		"mtime":       func(f *fstest.MapFile, _ *syscall.Stat_t) { f.ModTime = old.Add(1) },
		"ctime":       func(_ *fstest.MapFile, s *syscall.Stat_t) { s.Ctim.Nsec++ },
		"inode":       func(_ *fstest.MapFile, s *syscall.Stat_t) { s.Ino++ },
		"nothing":     func(*fstest.MapFile, *syscall.Stat_t) {},
		"permissions": func(f *fstest.MapFile, s *syscall.Stat_t) { f.Mode, s.Ctim.Nsec = 0o600, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			stat := &syscall.Stat_t{Ino: 7, Ctim: syscall.NsecToTimespec(old.UnixNano())}
			file := &fstest.MapFile{Data: []byte("one"), Mode: 0o644, ModTime: old, Sys: stat}
			state := &openedFS{FS: asIfOnDisk(t, fstest.MapFS{"f": file, "other": {Sys: stat, ModTime: old}})}
			o := claim(t, newTask(t))
			commit(t, o, checkpoint.Snapshot{State: checkpoint.FS(state)})
			state.take()
			if name != "size" {
				file.Data = []byte("two")
			}
			change(file, stat)
			fsys, err := commit(t, o, checkpoint.Snapshot{State: checkpoint.FS(state)}).FS(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			data, err := fs.ReadFile(fsys, "f")
			if name == "nothing" {
				if opened := state.take(); err != nil || len(opened) > 0 || string(data) != "one" {
					t.Errorf("%q opened; it is %q, %v", opened, data, err)
				}
			} else if err != nil || string(data) != string(file.Data) {
				t.Errorf("it is %q, %v", data, err)
			}
			if info, err := fs.Stat(fsys, "f"); err != nil || info.Mode() != file.Mode || !info.ModTime().Equal(file.ModTime) {
				t.Errorf("it is %v %v, %v", info.Mode(), info.ModTime(), err)
			}
		})
	}
}
