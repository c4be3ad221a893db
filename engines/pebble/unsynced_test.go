package pebble

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A syncCounter is the local disk, and counts how often someone waits for it.
type syncCounter struct {
	vfs.FS
	syncs *atomic.Int64
}

func (s syncCounter) Unwrap() vfs.FS { return s.FS }

func (s syncCounter) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, category)
	return countedFile{f, s.syncs}, err
}

func (s syncCounter) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.OpenReadWrite(name, category, opts...)
	return countedFile{f, s.syncs}, err
}

func (s syncCounter) OpenDir(name string) (vfs.File, error) {
	f, err := s.FS.OpenDir(name)
	return countedFile{f, s.syncs}, err
}

type countedFile struct {
	vfs.File
	syncs *atomic.Int64
}

func (f countedFile) Sync() error {
	f.syncs.Add(1)
	return f.File.Sync()
}

func (f countedFile) SyncData() error {
	f.syncs.Add(1)
	return f.File.SyncData()
}

func (f countedFile) SyncTo(length int64) (bool, error) {
	f.syncs.Add(1)
	return f.File.SyncTo(length)
}

// Neither a flush nor a cut waits for the disk.
func TestNothingIsSynced(t *testing.T) {
	var syncs atomic.Int64
	p, opts := newPlace(t), small()
	opts.FS = syncCounter{vfs.Default, &syncs}
	e := mustOpen(t, p, opts)
	want := make(map[string]string)
	for _, key := range strings.Split("abcdefgh", "") { // more than a memtable
		want[key] = strings.Repeat(key, 20<<10)
		mustWrite(t, e, key, want[key])
	}
	src, remove := mustCut(t, e)
	c := mustCommit(t, mustClaim(t, "mem://"+t.Name()), src)
	if err := remove(); err != nil {
		t.Error(err)
	}
	if n := syncs.Load(); n > 0 {
		t.Errorf("the disk was waited for %d times", n)
	}
	wantState(t, mustRestore(t, c), want)
}

// What a loss of power may leave of files that were never synced, with the size and the
// time that they had, is not taken for the state.
func TestStateAfterALossOfPower(t *testing.T) {
	p, url := newPlace(t), "mem://"+t.Name()
	e := mustOpen(t, p, small())
	mustWrite(t, e, "a", "1")
	src, remove := mustCut(t, e)
	mustCommit(t, mustClaim(t, url), src)
	if err := remove(); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(p.dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	for _, table := range tables {
		zero(t, table)
	}
	owner := mustClaim(t, url)
	if _, err := owner.Resume(t.Context(), p.dir); err != nil {
		t.Fatal(err)
	}
	wantState(t, p.dir, map[string]string{"a": "1"})

	// The next checkpoint has what was restored, and not what the disk had lost.
	e = mustOpen(t, p, small())
	mustWrite(t, e, "b", "2")
	src, remove = mustCut(t, e)
	c, err := owner.Commit(context.Background(), checkpoint.Snapshot{State: src})
	if err != nil {
		t.Fatal(err)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
	wantState(t, mustRestore(t, c), map[string]string{"a": "1", "b": "2"})
}

// zero makes a file's content zeros, and keeps its size and time.
func zero(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, info.Size()), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
}
