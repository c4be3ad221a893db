package checkpoint_test

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// failsAfter yields what r yields and then err.
func failsAfter(r io.Reader, err error) io.Reader { return io.MultiReader(r, iotest.ErrReader(err)) }

// noise returns n bytes that do not repeat. For the same n they are always the same.
func noise(n int) []byte {
	data := make([]byte, n)
	seed := [32]byte{byte(n), byte(n >> 8), byte(n >> 16)}
	_, _ = rand.NewChaCha8(seed).Read(data) // which never fails
	return data
}

// stateOf commits a source and returns its state as a file system.
func stateOf(t tester, s checkpoint.Source) fs.FS {
	t.Helper()
	c := commit(t, claim(t, newTask(t)), checkpoint.Snapshot{State: s})
	fsys, err := c.FS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

// Sizes near the limits of inline data, of chunks and of segments, which are 64 KiB
// here.
func TestSizesAtTheBorders(t *testing.T) {
	sizes := []int{0, 1, 2}
	for _, border := range []int{16 << 10, 64 << 10, 128 << 10, 192 << 10} {
		for _, off := range []int{-150, -64, -1, 0, 1} {
			sizes = append(sizes, border+off)
		}
	}
	for size := 16<<10 - 90; size < 16<<10-50; size++ { // where the list of files just fits, or just does not
		sizes = append(sizes, size)
	}
	o := claim(t, newTask(t))
	for _, size := range sizes {
		for _, before := range []int{0, 1, 64<<10 - 1, 64 << 10} { // this fills the segment first
			data := noise(before + size)
			c := commit(t, o, checkpoint.Snapshot{State: checkpoint.FS(fstest.MapFS{
				"a": {Data: data[:before], Mode: 0o644}, "b": {Data: data[before:], Mode: 0o644},
			})})
			if c.Files != 2 || c.Bytes != int64(len(data)) {
				t.Errorf("%d and %d bytes: %d files, %d bytes", before, size, c.Files, c.Bytes)
			}
			fsys, err := c.FS(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			a, errA := fs.ReadFile(fsys, "a")
			b, errB := fs.ReadFile(fsys, "b")
			if errA != nil || errB != nil || !bytes.Equal(append(a, b...), data) {
				t.Errorf("%d and %d bytes: %v, %v, or the bytes differ", before, size, errA, errB)
			}
		}
	}
}

//go:embed *_test.go
var embedded embed.FS

func TestFileSystemsThatAreNotDirectories(t *testing.T) {
	old := time.Date(1999, 12, 31, 23, 59, 59, 5, time.UTC)
	for name, source := range map[string]fs.FS{
		"embed": embedded,
		"empty": fstest.MapFS{},
		"map": fstest.MapFS{
			"a/b/c": {Data: []byte("deep"), Mode: 0o600, ModTime: old},
			"a/b-c": {Data: noise(200 << 10), Mode: 0o444},
			"a.b":   {Mode: fs.ModeDir | 0o700, ModTime: old},
			"link":  {Data: []byte("a/b"), Mode: fs.ModeSymlink | 0o777},
		},
		"without extras": plainFS{fstest.MapFS{"a/b": {Data: []byte("x"), Mode: 0o600}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, want := describeFS(t, stateOf(t, checkpoint.FS(source))), describeFS(t, source); got != want {
				t.Errorf("it comes back as\n%.2000q\nwant\n%.2000q", got, want)
			}
		})
	}
}

// plainFS can only open files.
type plainFS struct{ fs.FS }

// misbehaving is a file system whose files, or lists of files, are not what it says.
type misbehaving struct {
	fstest.MapFS
	open    func(name string) (fs.File, error)
	readDir func(name string) ([]fs.DirEntry, error)
}

func (m misbehaving) Open(name string) (fs.File, error) {
	if m.open != nil {
		if f, err := m.open(name); f != nil || err != nil {
			return f, err
		}
	}
	return m.MapFS.Open(name)
}

func (m misbehaving) ReadDir(name string) ([]fs.DirEntry, error) {
	if m.readDir != nil {
		return m.readDir(name)
	}
	return m.MapFS.ReadDir(name)
}

func TestStatesThatAreRefused(t *testing.T) {
	file := func(data string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(data), Mode: 0o644} }
	two := fstest.MapFS{"d/a": file("1"), "d/b": file("2")}
	openB := func(f fs.File, err error) func(string) (fs.File, error) {
		return func(name string) (fs.File, error) {
			if name == "d/b" {
				return f, err
			}
			return nil, nil
		}
	}
	for _, c := range []struct {
		name  string
		state checkpoint.Source
		kind  error  // nil means any
		text  string // the complete text
	}{
		{
			name:  "removed before it is opened",
			state: checkpoint.FS(misbehaving{MapFS: two, open: openB(nil, &fs.PathError{Op: "open", Path: "d/b", Err: fs.ErrNotExist})}),
			kind:  checkpoint.ErrChanged, text: "d/b: changed while it was saved: it was removed; save from a copy or a snapshot that nobody writes to",
		},
		{
			name:  "a directory when it is opened",
			state: checkpoint.FS(misbehaving{MapFS: two, open: openB(two.Open("d"))}),
			kind:  checkpoint.ErrChanged, text: "d/b: changed while it was saved: it is no longer a regular file",
		},
		{
			name:  "unreadable",
			state: checkpoint.FS(misbehaving{MapFS: two, open: openB(nil, &fs.PathError{Op: "open", Path: "d/b", Err: fs.ErrPermission})}),
			kind:  fs.ErrPermission, text: "d/b: open: permission denied",
		},
		{
			name: "unreadable directory",
			state: checkpoint.FS(misbehaving{MapFS: two, readDir: func(name string) ([]fs.DirEntry, error) {
				return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrPermission}
			}}),
			kind: fs.ErrPermission, text: ".: readdir: permission denied",
		},
		{
			name:  "a socket",
			state: checkpoint.FS(fstest.MapFS{"d/s": {Mode: fs.ModeSocket}}),
			text:  "d/s: it is a socket, which a checkpoint cannot hold; leave it out of the directory",
		},
		{
			name:  "a named pipe",
			state: checkpoint.FS(fstest.MapFS{"d/p": {Mode: fs.ModeNamedPipe}}),
			text:  "d/p: it is a named pipe, which a checkpoint cannot hold; leave it out of the directory",
		},
		{
			name:  "a device",
			state: checkpoint.FS(fstest.MapFS{"d/n": {Mode: fs.ModeDevice | fs.ModeCharDevice}}),
			text:  "d/n: it is a device, which a checkpoint cannot hold; leave it out of the directory",
		},
		{
			name:  "something else",
			state: checkpoint.FS(fstest.MapFS{"d/n": {Mode: fs.ModeIrregular}}),
			text:  "d/n: it is a file of an unknown kind, which a checkpoint cannot hold; leave it out of the directory",
		},
		{
			name:  "a link that cannot be read",
			state: checkpoint.FS(plainFS{fstest.MapFS{"d/l": {Mode: fs.ModeSymlink, Data: []byte("x")}}}),
			text:  "d/l: it is a symbolic link, which this file system cannot read: it has no ReadLink",
		},
		{
			name:  "a link to nothing",
			state: checkpoint.FS(fstest.MapFS{"d/l": {Mode: fs.ModeSymlink}}),
			text:  `this state cannot be stored: link "d/l" has target ""`,
		},
		{
			name:  "a stream without name",
			state: checkpoint.Stream("", strings.NewReader("x")), kind: backend.ErrInvalid,
			text: `stream name "" is not a valid path`,
		},
		{
			name:  "a stream whose name leads out",
			state: checkpoint.Stream("../x", strings.NewReader("x")), kind: backend.ErrInvalid,
			text: `stream name "../x" is not a valid path`,
		},
		{
			name:  "a stream that is the root",
			state: checkpoint.Stream(".", strings.NewReader("x")), kind: backend.ErrInvalid,
			text: `stream name "." is not a valid path`,
		},
		{
			name:  "a stream with a zero in its name",
			state: checkpoint.Stream("a\x00b", strings.NewReader("x")),
			text:  `this state cannot be stored: entry with path "a\x00b"`,
		},
		{
			name:  "a stream that breaks off",
			state: checkpoint.Stream("d/s", failsAfter(strings.NewReader("x"), errors.New("broken"))),
			text:  `stream "d/s": broken`,
		},
		{
			name:  "a stream whose own input was cut short",
			state: checkpoint.Stream("d/s", failsAfter(strings.NewReader("x"), io.ErrUnexpectedEOF)), kind: io.ErrUnexpectedEOF,
			text: `stream "d/s": unexpected EOF`,
		},
		{
			name:  "a stream whose connection ended",
			state: checkpoint.Stream("d/s", failsAfter(strings.NewReader("x"), fmt.Errorf("connection: %w", io.EOF))), kind: io.EOF,
			text: `stream "d/s": connection: EOF`,
		},
		{
			name:  "a stream that gets nowhere",
			state: checkpoint.Stream("d/s", standstill{}), kind: io.ErrNoProgress,
			text: `stream "d/s": multiple Read calls return no data or error`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := newTask(t)
			o := claim(t, task)
			base := commit(t, o, at(1))
			_, err := o.Commit(t.Context(), checkpoint.Snapshot{State: c.state})
			if err == nil || err.Error() != c.text || c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("err = %v\nwant  %s", err, c.text)
			}
			if got, err := task.Latest(t.Context()); err != nil || got.Seq != base.Seq {
				t.Errorf("afterwards the newest is %+v, %v", got, err)
			}
			if _, err := o.Commit(t.Context(), at(2)); err != nil {
				t.Errorf("the next commit: %v", err)
			}
		})
	}
}

// standstill never reads anything.
type standstill struct{}

func (standstill) Read([]byte) (int, error) { return 0, nil }

// A list that is out of order, or contains a name twice, is not written: every reader
// would refuse it.
func TestListOutOfOrderIsRefused(t *testing.T) {
	two := fstest.MapFS{"a": {Mode: 0o644}, "b": {Mode: 0o644}}
	list, err := two.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for name, list := range map[string][]fs.DirEntry{
		"backwards": {list[1], list[0]}, "twice": {list[0], list[0]},
	} {
		o := claim(t, newTask(t))
		fsys := misbehaving{MapFS: two, readDir: func(string) ([]fs.DirEntry, error) { return list, nil }}
		_, err := o.Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.FS(fsys)})
		if err == nil || !strings.Contains(err.Error(), `this state cannot be stored: entry "a" after`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStreams(t *testing.T) {
	data := noise(150 << 10)
	for name, r := range map[string]io.Reader{
		"plain":                  bytes.NewReader(data),
		"one byte at a time":     iotest.OneByteReader(bytes.NewReader(data)),
		"half of what is wanted": iotest.HalfReader(bytes.NewReader(data)),
		"data with the end":      iotest.DataErrReader(bytes.NewReader(data)),
		"nothing now and then":   &hesitant{r: bytes.NewReader(data)},
		"empty":                  strings.NewReader(""),
	} {
		t.Run(name, func(t *testing.T) {
			want := data
			if name == "empty" {
				want = nil
			}
			got, err := fs.ReadFile(stateOf(t, checkpoint.Stream("s", r)), "s")
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v, or they differ", len(got), err)
			}
		})
	}
	for _, name := range []string{"s", "a/b/c/s", "a-b/ü", "..."} {
		t.Run("named "+name, func(t *testing.T) {
			if err := fstest.TestFS(stateOf(t, checkpoint.Stream(name, strings.NewReader("x"))), name); err != nil {
				t.Error(err)
			}
		})
	}
}

// hesitant reads nothing every other time.
type hesitant struct {
	r   io.Reader
	now bool
}

func (h *hesitant) Read(p []byte) (int, error) {
	if h.now = !h.now; h.now {
		return 0, nil
	}
	return h.r.Read(p[:min(len(p), 1000)])
}

// A reader that never ends is ended by the context.
func TestEndlessStreamIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	endless := readerFunc(func(p []byte) (int, error) {
		if n++; n == 10 {
			cancel()
		}
		p[0] = 'x'
		return 1, nil
	})
	task := newTask(t)
	_, err := claim(t, task).Commit(ctx, checkpoint.Snapshot{State: checkpoint.Stream("s", endless)})
	if !errors.Is(err, context.Canceled) || n != 10 {
		t.Errorf("err = %v after %d reads", err, n)
	}
	if _, err := task.Latest(t.Context()); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
		t.Errorf("newest: %v", err)
	}
}

// The writer of a stream is told why the save failed, and does not wait for a reader
// that is gone, even if the save is refused before it reads.
func TestWriterOfAStreamHearsOfTheFailure(t *testing.T) {
	full := errors.New("the store is full")
	for name, test := range map[string]struct {
		save func(*world, *checkpoint.Task, checkpoint.Source) error
		want error
	}{
		"commit": {func(w *world, task *checkpoint.Task, s checkpoint.Source) error {
			_, err := claim(w, task).Commit(w.Context(), checkpoint.Snapshot{State: s})
			return err
		}, full},
		"save": {func(w *world, task *checkpoint.Task, s checkpoint.Source) error {
			_, err := task.Save(w.Context(), checkpoint.Snapshot{State: s}, checkpoint.SaveOptions{})
			return err
		}, full},
		"refused": {func(w *world, task *checkpoint.Task, s checkpoint.Source) error {
			_, err := task.Save(w.Context(), checkpoint.Snapshot{State: s, OffsetsAre: "elephants"}, checkpoint.SaveOptions{})
			return err
		}, backend.ErrInvalid},
		"closed owner": {func(w *world, task *checkpoint.Task, s checkpoint.Source) error {
			o := claim(w, task)
			if err := o.Close(context.Background()); err != nil {
				return err
			}
			_, err := o.Commit(w.Context(), checkpoint.Snapshot{State: s})
			return err
		}, fs.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				task, _, store := w.open(checkpoint.Options{Memory: 1 << 20})
				if errors.Is(test.want, full) {
					store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "put", Err: fmt.Errorf("%w: %w", full, backend.ErrNoSpace)})
				}
				r, pipe := io.Pipe()
				wrote := in(func() error {
					for n := range 100 {
						if _, err := pipe.Write(noise(100<<10 + n)); err != nil {
							return err
						}
					}
					return errors.New("it was all read")
				})
				err := test.save(w, task, checkpoint.Stream("s", r))
				if !errors.Is(err, test.want) {
					t.Errorf("the save: %v, want %v", err, test.want)
				}
				select {
				case err := <-wrote:
					if !errors.Is(err, test.want) {
						t.Errorf("the writer was told %v, want %v", err, test.want)
					}
				case <-time.After(time.Hour):
					t.Error("the writer still waits after an hour")
					_ = r.Close()
					t.Log(<-wrote)
				}
			})
		})
	}
}

// A commit whose upload has failed, or whose context has ended, does not wait for a
// silent writer.
func TestSilentWriterDoesNotHoldACommit(t *testing.T) {
	for name, want := range map[string]error{"upload failed": backend.ErrNoSpace, "context ended": context.DeadlineExceeded} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				task, _, store := w.open(checkpoint.Options{Memory: 1 << 20})
				o := claim(w, task)
				ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
				defer cancel()
				if name == "upload failed" {
					ctx = w.Context()
					store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "put", Err: backend.ErrNoSpace})
				}
				r, pipe := io.Pipe()
				committed := in(func() error {
					_, err := o.Commit(ctx, checkpoint.Snapshot{State: checkpoint.Stream("s", r)})
					return err
				})
				if _, err := pipe.Write(noise(1 << 20)); err != nil { // and then nothing more
					t.Logf("the writer: %v", err)
				}
				select {
				case err := <-committed:
					if !errors.Is(err, want) {
						t.Errorf("commit: %v, want %v", err, want)
					}
				case <-time.After(time.Hour):
					t.Error("the commit still waits after an hour")
					_ = r.Close()
					t.Log(<-committed)
				}
			})
		})
	}
}

// A save closes the reader of a stream if it fails, and only then.
func TestReaderOfAStreamIsClosedOnFailure(t *testing.T) {
	for name, r := range map[string]io.Reader{"good": strings.NewReader("x"), "bad": iotest.ErrReader(errors.New("broken"))} {
		c := &closing{Reader: r}
		_, err := newTask(t).Save(t.Context(), checkpoint.Snapshot{State: checkpoint.Stream("s", c)}, checkpoint.SaveOptions{})
		if failed := err != nil; failed != (name == "bad") || c.closed != failed {
			t.Errorf("%s: the save: %v; closed: %t", name, err, c.closed)
		}
	}
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// whileReading is a directory. touch is called when half of a file has been read.
type whileReading struct {
	fs.FS
	touch func()
}

func (w whileReading) Open(name string) (fs.File, error) {
	f, err := w.FS.Open(name)
	if info, _ := f.Stat(); err == nil && !info.IsDir() {
		return &halfway{f, w.touch}, nil
	}
	return f, err
}

func (w whileReading) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(w.FS, name) }

type halfway struct {
	fs.File
	touch func()
}

func (f *halfway) Read(p []byte) (int, error) {
	n, err := f.File.Read(p[:min(len(p), 5)])
	if f.touch != nil {
		f.touch()
		f.touch = nil
	}
	return n, err
}

// If a file is written to while it is read, the save fails: it never stores a
// mixture.
func TestFileThatChangesWhileItIsRead(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(path string) error
		text string
	}{
		{"grows", func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("more")
			return errors.Join(err, f.Close())
		}, "d/f: changed while it was saved: 10 bytes before, 14 read, 14 after"},
		{"shrinks", func(path string) error { return os.Truncate(path, 7) },
			"d/f: changed while it was saved: 10 bytes before, 7 read, 7 after"},
		{"is emptied", func(path string) error { return os.Truncate(path, 0) },
			"d/f: changed while it was saved: 10 bytes before, 5 read, 0 after"},
		{"keeps its size", func(path string) error { return os.WriteFile(path, []byte("abcdefghij"), 0o644) },
			"d/f: changed while it was saved: it was written to"},
		{"keeps its size and its time", func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(path, []byte("abcdefghij"), 0o644), os.Chtimes(path, info.ModTime(), info.ModTime()))
		}, "d/f: changed while it was saved: it was written to"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "d", "f")
			if err := errors.Join(os.Mkdir(filepath.Join(dir, "d"), 0o755), os.WriteFile(path, []byte("0123456789"), 0o644)); err != nil {
				t.Fatal(err)
			}
			settle(t, path)
			touched := false
			source := whileReading{os.DirFS(dir), func() {
				touched = true
				if err := c.do(path); err != nil {
					t.Error(err)
				}
			}}
			task := newTask(t)
			o := claim(t, task)
			commit(t, o, at(1))
			_, err := o.Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.FS(source)})
			if !errors.Is(err, checkpoint.ErrChanged) || !strings.HasPrefix(err.Error(), c.text) {
				t.Errorf("err = %v\nwant  %s...", err, c.text)
			}
			if got, err := task.Latest(t.Context()); err != nil || got.Offsets["in"] != "1" || !touched {
				t.Errorf("afterwards the newest is %+v, %v", got, err)
			}
		})
	}
}

// settle waits until a write to the file would give it another time. The clock of a
// file system may be as coarse as 10 ms.
func settle(t tester, path string) {
	t.Helper()
	was, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for probe := filepath.Join(tempDir(t), "probe"); ; {
		if err := os.WriteFile(probe, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if now, err := os.Stat(probe); err != nil || now.ModTime().After(was.ModTime()) {
			return
		}
		if err := os.Remove(probe); err != nil {
			t.Fatal(err)
		}
	}
}

// If a file is replaced between the listing and its opening, the save stores the
// complete new file.
func TestFileThatIsReplacedIsTheNewOne(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "f"), []byte("old"), 0o644), os.WriteFile(filepath.Join(dir, "new"), []byte("newer"), 0o600)); err != nil {
		t.Fatal(err)
	}
	real, replaced := os.DirFS(dir), false
	fsys := misbehaving{open: func(name string) (fs.File, error) {
		if name == "f" && !replaced {
			replaced = true
			if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "f")); err != nil {
				return nil, err
			}
		}
		return real.Open(name)
	}, readDir: func(string) ([]fs.DirEntry, error) {
		list, err := fs.ReadDir(real, ".")
		return list[:1], err // only f
	}}
	state := stateOf(t, checkpoint.FS(fsys))
	data, err := fs.ReadFile(state, "f")
	info, _ := fs.Stat(state, "f")
	if err != nil || string(data) != "newer" || info.Size() != 5 || info.Mode() != 0o600 {
		t.Errorf("%q, %v, %v", data, info, err)
	}
}

func TestDirectoryThatIsNone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	for path, text := range map[string]string{
		missing: "open " + missing + ": no such file or directory",
		file:    "open " + file + ": not a directory",
		"":      "the state's directory has no name",
	} {
		_, err := claim(t, newTask(t)).Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.Dir(path)})
		if err == nil || err.Error() != text {
			t.Errorf("%q: %v; want %s", path, err, text)
		}
	}
}
