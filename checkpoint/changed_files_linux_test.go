package checkpoint_test

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// While one file is read, something happens to files that were read already or need
// not be read. The save either has the state of one moment, or fails and names the
// file.
func TestFilesThatChangeWhileAnotherIsRead(t *testing.T) {
	rewrite := func(path string) error { return os.WriteFile(path, []byte("2"), 0o644) }
	keepTime := func(path string, do func() error) error { // do changes the file; its time is set back
		info, err := os.Stat(path)
		return errors.Join(err, do(), os.Chtimes(path, time.Time{}, info.ModTime()))
	}
	for _, c := range []struct {
		name   string
		change func(l *live) error
		want   string // the file that the error names, and what happened to it; "" for no error
		known  string // the same if only the other file is read; "" if it is equal to want
	}{
		{
			name:   "two are rewritten",
			change: func(l *live) error { return errors.Join(rewrite(l.path("a")), rewrite(l.path("z"))) },
			want:   "a: it was written to",
		},
		{
			name:   "one in a directory",
			change: func(l *live) error { return rewrite(l.path("d/a")) },
			want:   "d/a: it was written to",
		},
		{
			name:   "one grows",
			change: func(l *live) error { return os.WriteFile(l.path("a"), []byte("22"), 0o644) },
			want:   "a: it was written to",
		},
		{
			name: "one is written to, and has its time set back",
			change: func(l *live) error {
				return keepTime(l.path("a"), func() error { return rewrite(l.path("a")) })
			},
			want: "a: it was written to",
		},
		{
			name: "one is replaced by another of the same size and time",
			change: func(l *live) error {
				other := l.path("../other")
				return keepTime(l.path("a"), func() error { return errors.Join(rewrite(other), os.Rename(other, l.path("a"))) })
			},
			want: "a: it was replaced",
		},
		{
			name:   "one becomes a directory",
			change: func(l *live) error { return errors.Join(os.Remove(l.path("a")), os.Mkdir(l.path("a"), 0o755)) },
			want:   "a: it was replaced",
		},
		{
			name: "a link leads elsewhere",
			change: func(l *live) error {
				return errors.Join(os.Remove(l.path("link")), os.Symlink("z", l.path("link")))
			},
			want: "link: it was replaced",
		},
		{
			name:   "one is removed",
			change: func(l *live) error { return os.Remove(l.path("a")) },
			want:   "a: it was removed",
		},
		{
			name:   "the last is removed",
			change: func(l *live) error { return os.Remove(l.path("zz")) },
			want:   "zz: it was removed",
		},
		{
			name:   "a directory is removed",
			change: func(l *live) error { return os.RemoveAll(l.path("d")) },
			want:   "d: it was removed",
		},
		{
			name:   "one is added",
			change: func(l *live) error { return rewrite(l.path("b")) },
			want:   "b: it was added",
		},
		{
			name:   "one is added behind all others",
			change: func(l *live) error { return rewrite(l.path("zzz")) },
			want:   "zzz: it was added",
		},
		{
			name:   "a directory is added",
			change: func(l *live) error { return os.Mkdir(l.path("e"), 0o755) },
			want:   "e: it was added",
		},
		{
			name:   "one that is yet to be read is written to",
			change: func(l *live) error { return rewrite(l.path("z")) },
			known:  "z: it was written to",
		},
		{
			name: "one is written anew with the same bytes, and has its time set back",
			change: func(l *live) error {
				return keepTime(l.path("a"), func() error { return os.WriteFile(l.path("a"), []byte("1"), 0o644) })
			},
		},
		{
			name:   "one gets another link",
			change: func(l *live) error { return os.Link(l.path("a"), l.path("../link")) },
		},
		{
			name:   "one gets other permissions",
			change: func(l *live) error { return os.Chmod(l.path("a"), 0o600) },
		},
		{
			name:   "one comes and goes",
			change: func(l *live) error { return errors.Join(rewrite(l.path("b")), os.Remove(l.path("b"))) },
		},
	} {
		t.Run(c.name, func(t *testing.T) { changeWhileAnotherIsRead(t, false, c.change, c.want) })
		t.Run(c.name+", known", func(t *testing.T) { changeWhileAnotherIsRead(t, true, c.change, cmp.Or(c.known, c.want)) })
	}
}

// changeWhileAnotherIsRead saves a state that changes when its file m is opened. If
// known is set, m is the only file that is read.
func changeWhileAnotherIsRead(t *testing.T, known bool, change func(*live) error, want string) {
	l := newLive(t)
	l.dir = filepath.Join(l.dir, "state") // beside it, there is room for other files
	l.opened.FS = &agedFS{FS: os.DirFS(l.dir)}
	for _, name := range []string{"a", "d/a", "m", "z", "zz"} {
		l.write(name, []byte("1"))
	}
	l.must(os.Symlink("a", l.path("link")))
	o := claim(t, newTask(t))
	if known {
		commit(t, o, l.snapshot())
	}
	l.saved()
	l.write("m", []byte("another"))
	settle(t, l.dir)
	state := hookedFS{&l.opened, func(name string) {
		if name == "m" {
			l.must(change(l))
		}
	}}
	made, err := o.Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.FS(state)})
	if want == "" {
		l.must(err)
		l.wantBack(made)
		return
	}
	want = strings.Replace(want, ": ", ": "+checkpoint.ErrChanged.Error()+": ", 1)
	if !errors.Is(err, checkpoint.ErrChanged) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("err = %v\nwant  %s...", err, want)
	}
	l.wantBack(commit(t, o, l.snapshot()))
}

// An immutable file is not read again only because its change time moved while others
// were read: a database may have removed one of its names.
func TestImmutableFileLosesALink(t *testing.T) {
	l := newLive(t)
	l.write("1.sst", noise(1000))
	l.write("m", []byte("1"))
	l.must(os.Link(l.path("1.sst"), filepath.Join(tempDir(t), "link")))
	o := claim(t, newTask(t))
	commit(t, o, l.snapshot())
	l.saved()
	l.write("m", []byte("2"))
	state := hookedFS{&l.opened, func(name string) {
		if name == "m" {
			l.must(os.Link(l.path("1.sst"), filepath.Join(tempDir(t), "link")))
		}
	}}
	made := commit(t, o, checkpoint.Snapshot{State: checkpoint.FS(state).Immutable("*.sst")})
	l.wantOpened("m")
	l.wantBack(made)
}

// On some file systems, a directory's list gives older times than the file itself: on
// Windows, for example, if a file has several links. Then the file itself is asked.
func TestListsThatAreOlderThanTheirFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	stale, err := os.Stat(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	settle(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("22"), 0o644); err != nil {
		t.Fatal(err)
	}
	state := stateOf(t, checkpoint.FS(listedFS{os.DirFS(dir), []fs.DirEntry{fs.FileInfoToDirEntry(stale)}}))
	if data, err := fs.ReadFile(state, "f"); err != nil || string(data) != "22" {
		t.Errorf("it is %q, %v", data, err)
	}
}

// A listedFS has a directory list of its own.
type listedFS struct {
	fs.FS
	list []fs.DirEntry
}

func (l listedFS) ReadDir(string) ([]fs.DirEntry, error) { return l.list, nil }
