package checkpoint_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

func TestResume(t *testing.T) {
	task := newTask(t)
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(filepath.Join(dir, "of an earlier process"), 0o777); err != nil {
		t.Fatal(err)
	}
	o := claim(t, task)
	c, err := o.Resume(t.Context(), dir)
	if err != nil || c.Seq != 0 || len(c.Offsets) != 0 {
		t.Fatalf("with no checkpoint: %+v, %v", c, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("with no checkpoint the directory holds %v, %v", left, err)
	}
	commit(t, o, with(1, 100))
	if err := os.WriteFile(filepath.Join(dir, "later"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	c, err = claim(t, task).Resume(t.Context(), dir)
	if err != nil || c.Offsets["in"] != "1" {
		t.Fatalf("with a checkpoint: %+v, %v", c, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "s" {
		t.Errorf("with a checkpoint the directory holds %v, %v", left, err)
	}
}

// A state that is in use is not replaced: neither by a second Resume nor by one after
// a Commit, whether that succeeded or not.
func TestResumeMustComeFirst(t *testing.T) {
	for name, begin := range map[string]func(*checkpoint.Owner, string) error{
		"after a resume": func(o *checkpoint.Owner, dir string) error { _, err := o.Resume(t.Context(), dir); return err },
		"after a commit": func(o *checkpoint.Owner, _ string) error { _, err := o.Commit(t.Context(), at(2)); return err },
		"after a commit that failed": func(o *checkpoint.Owner, _ string) error {
			_, err := o.Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.Dir("")})
			if err == nil {
				return errors.New("the commit did not fail")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			task := newTask(t)
			commit(t, claim(t, task), with(1, 100))
			o := claim(t, task)
			dir := filepath.Join(t.TempDir(), "state")
			if err := begin(o, dir); err != nil {
				t.Fatal(err)
			}
			database := filepath.Join(dir, "database")
			if err := errors.Join(os.MkdirAll(dir, 0o777), os.WriteFile(database, []byte("in use"), 0o666)); err != nil {
				t.Fatal(err)
			}
			_, err := o.Resume(t.Context(), dir)
			if !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), "close first what uses it") {
				t.Errorf("resume: %v, want that it be closed first", err)
			}
			if data, err := os.ReadFile(database); err != nil || string(data) != "in use" {
				t.Errorf("the state in use is now %q, %v", data, err)
			}
			if _, err := o.Commit(t.Context(), at(3)); err != nil {
				t.Errorf("the owner cannot commit any more: %v", err)
			}
		})
	}
}

// A failed Resume has changed nothing, and may be called again.
func TestResumeAgainAfterItFailed(t *testing.T) {
	task := newTask(t)
	commit(t, claim(t, task), with(1, 100))
	o := claim(t, task)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Resume(t.Context(), filepath.Join(file, "state")); err == nil {
		t.Fatal("it resumed below a file")
	}
	if _, err := o.Resume(t.Context(), filepath.Join(dir, "state")); err != nil {
		t.Error(err)
	}
}

// A Resume of an owner that has ended fails, and replaces nothing.
func TestResumeOfAnOwnerThatHasEnded(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*checkpoint.Owner) error
		want error
	}{
		"closed":   {func(o *checkpoint.Owner) error { return o.Close(context.Background()) }, fs.ErrClosed},
		"released": {func(o *checkpoint.Owner) error { return o.Release(t.Context()) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := claim(t, newTask(t))
			if err := test.end(o); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "state")
			if _, err := o.Resume(t.Context(), dir); err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("there is a directory: %v", err)
			}
		})
	}
}

// meddled is a directory in which something happens to each file after it was opened
// and described, and before it is read.
type meddled struct {
	fs.FS
	meddle func(name string)
}

func (m meddled) Open(name string) (fs.File, error) {
	f, err := m.FS.Open(name)
	if info, e := fs.Stat(m.FS, name); err != nil || e != nil || info.IsDir() {
		return f, err
	}
	return &meddledFile{File: f, meddle: func() { m.meddle(name) }}, nil
}

type meddledFile struct {
	fs.File
	meddle func()
	done   bool
}

func (f *meddledFile) Read(p []byte) (int, error) {
	if !f.done {
		f.meddle()
		f.done = true
	}
	return f.File.Read(p)
}

// The change time of a file moves when someone writes to it and sets its modification
// time back. It also moves when a hard link to it is removed, which changes nothing:
// a database removes links to files that its snapshot still has.
func TestChangeTimeMoves(t *testing.T) {
	for name, c := range map[string]struct {
		meddle func(path string) error
		want   error
	}{
		"a link goes": {func(path string) error { return os.Remove(path + ".link") }, nil},
		"other bytes, the old time": {func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			// Once before the first read and once more before the second.
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data[0]++
			if err := os.WriteFile(path, data, 0o666); err != nil {
				return err
			}
			return os.Chtimes(path, time.Time{}, info.ModTime())
		}, checkpoint.ErrChanged},
	} {
		t.Run(name, func(t *testing.T) {
			dir, links := t.TempDir(), t.TempDir()
			path := filepath.Join(dir, "table")
			if err := os.WriteFile(path, make([]byte, 200<<10), 0o666); err != nil {
				t.Fatal(err)
			}
			if err := os.Link(path, filepath.Join(links, "table.link")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond) // more than a tick of the file system's clock
			state := meddled{os.DirFS(dir), func(string) {
				p := path
				if c.want == nil {
					p = filepath.Join(links, "table")
				}
				if err := c.meddle(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			}}
			_, err := claim(t, newTask(t)).Commit(t.Context(), checkpoint.Snapshot{State: checkpoint.FS(state)})
			if !errors.Is(err, c.want) {
				t.Errorf("commit: %v, want %v", err, c.want)
			}
		})
	}
}
