package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// A promise about one part does not apply to the others.
func TestPromiseOfAPart(t *testing.T) {
	l := newLive(t)
	l.write("x.sst", []byte("one"))
	o := claim(t, newTask(t))
	state := func() checkpoint.Snapshot {
		return checkpoint.Snapshot{State: checkpoint.Join(map[string]checkpoint.Source{
			"a": checkpoint.FS(fstest.MapFS{"y.sst": {Data: []byte("y")}}).Immutable("*.sst").WriteOnce("*.sst"),
			"b": l.source(),
		})}
	}
	commit(t, o, state())
	l.saved()
	l.write("x.sst", []byte("two"))
	commit(t, o, state())
	l.wantOpened("x.sst")
}

// If a file of one part changes while a stream of another is read, that is noticed.
func TestChangeInAPart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Files are read after streams, so the change comes when the last file is read.
	meddler := &meddledOnce{FS: fstest.MapFS{"g": {Data: []byte("g")}}, do: func() {
		if err := os.WriteFile(path, []byte("another"), 0o600); err != nil {
			t.Error(err)
		}
	}}
	_, err := newTask(t).Save(t.Context(), checkpoint.Snapshot{State: checkpoint.Join(map[string]checkpoint.Source{
		"a": checkpoint.Dir(dir), "b": checkpoint.FS(meddler), "c": checkpoint.Stream("s", strings.NewReader("s")),
	})}, checkpoint.SaveOptions{})
	if !errors.Is(err, checkpoint.ErrChanged) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v; want ErrChanged, of %s", err, path)
	}
}

type meddledOnce struct {
	fs.FS
	do func()
}

func (m *meddledOnce) Open(name string) (fs.File, error) {
	f, err := m.FS.Open(name)
	if name == "g" && m.do != nil {
		m.do()
		m.do = nil
	}
	return f, err
}

// A directory whose name is the beginning of another name is not confused with that.
func TestSubOfANameThatBeginsAnother(t *testing.T) {
	c, err := newTask(t).Save(t.Context(), checkpoint.Snapshot{State: checkpoint.FS(fstest.MapFS{
		"a/f": {Data: []byte("f")}, "ab/g": {Data: []byte("g")},
	})}, checkpoint.SaveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "x")
	if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{Sub: "a"}); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(target); err != nil || len(names) != 1 || names[0].Name() != "f" {
		t.Errorf("%v, %v; want f alone", names, err)
	}
}

// A file that is written twice in one tick of the clock, the second time after it was
// read, looks unchanged. The save must fail all the same.
func TestWriteInTheSameTick(t *testing.T) {
	now := time.Now()
	stat := &syscall.Stat_t{Ino: 7, Ctim: syscall.NsecToTimespec(now.UnixNano())}
	first := &fstest.MapFile{Data: []byte("a=1"), Mode: 0o644, ModTime: now, Sys: stat}
	state := &meddledOnce{FS: fstest.MapFS{"a": first, "g": {Data: []byte("z=2"), Mode: 0o644}}, do: func() { first.Data = []byte("a=2") }}
	_, err := newTask(t).Save(t.Context(), checkpoint.Snapshot{State: checkpoint.FS(state)}, checkpoint.SaveOptions{})
	if !errors.Is(err, checkpoint.ErrChanged) {
		t.Errorf("%v, want ErrChanged", err)
	}
}

// A promise that is not repeated has no effect later.
func TestPromiseThatIsTakenBack(t *testing.T) {
	l := newLive(t)
	o := claim(t, newTask(t))
	l.write("f", []byte("one"))
	commit(t, o, l.snapshot())
	l.saved()
	l.write("f", []byte("two")) // the promise hides this change
	l.saved()
	commit(t, o, checkpoint.Snapshot{State: l.source().Immutable("f")})
	l.wantOpened()
	made := commit(t, o, l.snapshot())
	l.wantOpened("f")
	l.wantBack(made)
}

// If the store does not answer, the clean-up ends when the context of Close ends.
func TestCloseCutsTheCleanUpShort(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "delete", For: 24 * time.Hour})
		commit(w, o, with(2, 100<<10))
		ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		err := o.Close(ctx)
		if took := time.Since(began); took > time.Hour {
			t.Errorf("it took %v", took)
		}
		if err == nil || !errors.Is(err, ctx.Err()) {
			t.Errorf("%v; want the end of the context", err)
		}
		// An owner that is closed later, with the store working, gets no error.
		store.Heal()
		heir, _ := w.ownerWith(lastOne)
		ended, cancel := context.WithTimeout(w.Context(), 0)
		defer cancel()
		if err := heir.Close(ended); err != nil {
			t.Errorf("closing an owner that has nothing to clean up: %v", err)
		}
	})
}

// A Resume restores the owners with which the files were saved.
func TestResumeBringsOwnersBack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving files away takes root")
	}
	bucket := mem.NewBucket(time.Now)
	_, task := jobOf(t, bucket, checkpoint.Options{})
	dir := filepath.Join(t.TempDir(), "state")
	path := filepath.Join(dir, "f")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, []byte("f"), 0o600), os.Chown(path, 12345, 23456)); err != nil {
		t.Fatal(err)
	}
	commit(t, claim(t, task), checkpoint.Snapshot{State: checkpoint.Dir(dir).FileOwners()})
	if _, err := claim(t, task).Resume(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := info.Sys().(*syscall.Stat_t); s.Uid != 12345 || s.Gid != 23456 {
		t.Errorf("it is owned by %d and %d", s.Uid, s.Gid)
	}
	if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, []byte("f")) {
		t.Errorf("%q, %v", data, err)
	}
}
