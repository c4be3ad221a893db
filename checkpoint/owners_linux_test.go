package checkpoint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A file that runs as its owner must not be restored so that it runs as the user who
// restores it.
func TestSetuidIsNotRestored(t *testing.T) {
	state := t.TempDir()
	const special = fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	for name, mode := range map[string]fs.FileMode{"program": special | 0o755, "d": fs.ModeDir | special | 0o777, ".": fs.ModeDir | special | 0o755} {
		path := filepath.Join(state, name)
		var err error
		switch name {
		case "program":
			err = os.WriteFile(path, []byte("#!/bin/sh\nid\n"), 0o755)
		case "d":
			err = os.Mkdir(path, 0o755)
		}
		if err := errors.Join(err, os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(state, "program"), 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(state, "program"), special|0o755); err != nil { // chown removes these bits
			t.Fatal(err)
		}
	}
	c := commit(t, claim(t, newTask(t)), checkpoint.Snapshot{State: checkpoint.Dir(state)})
	target := filepath.Join(t.TempDir(), "x")
	if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		"program": fs.ModeSticky | 0o755, "d": fs.ModeDir | fs.ModeSticky | 0o777, ".": fs.ModeDir | fs.ModeSticky | 0o755,
	} {
		info, err := os.Lstat(filepath.Join(target, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s is restored with mode %v; want %v", name, info.Mode(), want)
		}
	}
}

// ownedBy describes owners and modes of everything in a directory.
func ownedBy(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			s := info.Sys().(*syscall.Stat_t)
			fmt.Fprintf(&b, "%s %v %d:%d\n", strings.TrimPrefix(path, dir), info.Mode(), s.Uid, s.Gid)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// ownedState makes a directory with files of several users, if this user may change
// owners.
func ownedState(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "d"), 0o755),
		os.WriteFile(filepath.Join(dir, "d", "program"), []byte("#!/bin/sh\nid\n"), 0o755),
		os.WriteFile(filepath.Join(dir, "empty"), nil, 0o640),
		os.Symlink("d/program", filepath.Join(dir, "link")),
		give(filepath.Join(dir, "d", "program"), 12345, 54321),
		give(filepath.Join(dir, "link"), 1<<32-2, 7),
		give(filepath.Join(dir, "d"), 12345, 0),
		give(dir, 0, 54321),
		os.Chmod(filepath.Join(dir, "d", "program"), fs.ModeSetuid|fs.ModeSetgid|0o755),
		os.Chmod(filepath.Join(dir, "d"), fs.ModeSetgid|0o775),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// give changes a file's owner, if this user may do that.
func give(path string, uid, gid int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, uid, gid)
}

func TestOwners(t *testing.T) {
	state := ownedState(t)
	c := commit(t, claim(t, newTask(t)), checkpoint.Snapshot{State: checkpoint.Dir(state).FileOwners()})
	target := filepath.Join(t.TempDir(), "x")
	for range 2 { // the second time over an existing directory
		if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{FileOwners: true, Replace: true}); err != nil {
			t.Fatal(err)
		}
		if got, want := ownedBy(t, target), ownedBy(t, state); got != want {
			t.Errorf("restored:\n%s\nwant\n%s", got, want)
		}
	}
	if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{Replace: true}); err != nil {
		t.Fatal(err)
	}
	if got := ownedBy(t, target); strings.Contains(got, "12345") || strings.Contains(got, "ug") {
		t.Errorf("restored without owners:\n%s", got)
	}
	entries, err := c.Entries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e, is := entries[2], fmt.Sprintf("/d/program ugrwxr-xr-x %d:%d\n", entries[2].UID, entries[2].GID)
	if want := ownedBy(t, state); e.Path != "d/program" || !strings.Contains(want, is) {
		t.Errorf("%q, want it in\n%s", is, want)
	}
}

// A change of only the owner counts as a change, also for a directory or a link. So
// does a new request to save owners.
func TestChangeOfAnOwnerIsSeen(t *testing.T) {
	state := ownedState(t)
	o := claim(t, newTask(t))
	source := checkpoint.FS(&agedFS{FS: os.DirFS(state)})
	restored := func(c *checkpoint.Checkpoint) string {
		t.Helper()
		target := filepath.Join(t.TempDir(), "x")
		if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{FileOwners: true}); err != nil {
			t.Fatal(err)
		}
		return ownedBy(t, target)
	}
	bare := commit(t, o, checkpoint.Snapshot{State: source})
	if err := bare.Restore(t.Context(), filepath.Join(t.TempDir(), "x"), checkpoint.RestoreOptions{FileOwners: true}); !errors.Is(err, checkpoint.ErrFileOwners) {
		t.Errorf("owners that were not saved: %v", err)
	}
	c := commit(t, o, checkpoint.Snapshot{State: source.FileOwners()})
	if got, want := restored(c), ownedBy(t, state); got != want {
		t.Errorf("after owners were asked for:\n%s\nwant\n%s", got, want)
	}
	for _, name := range []string{"d", "link", "empty", "d/program", "."} {
		if err := give(filepath.Join(state, name), 4242, 4343); err != nil {
			t.Fatal(err)
		}
		c := commit(t, o, checkpoint.Snapshot{State: source.FileOwners()})
		if got, want := restored(c), ownedBy(t, state); got != want {
			t.Errorf("after the owner of %s changed:\n%s\nwant\n%s", name, got, want)
		}
	}
	again := commit(t, o, checkpoint.Snapshot{State: source})
	if err := again.Restore(t.Context(), filepath.Join(t.TempDir(), "x"), checkpoint.RestoreOptions{FileOwners: true}); !errors.Is(err, checkpoint.ErrFileOwners) {
		t.Errorf("owners that are not saved any more: %v", err)
	}
}

func TestOwnersThatAreNotKnownAreNotSaved(t *testing.T) {
	for name, source := range map[string]checkpoint.Source{
		"a file system in memory": checkpoint.FS(fstest.MapFS{"f": {Data: []byte("f")}}),
		"a stream":                checkpoint.Stream("f", strings.NewReader("f")),
	} {
		o := claim(t, newTask(t))
		_, err := o.Commit(t.Context(), checkpoint.Snapshot{State: source.FileOwners()})
		if !errors.Is(err, checkpoint.ErrFileOwners) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: err = %v, want ErrFileOwners", name, err)
		}
	}
	// A checkpoint without a state has no owners, and nothing in it lacks one.
	c := commit(t, claim(t, newTask(t)), checkpoint.Snapshot{})
	if err := c.Restore(t.Context(), filepath.Join(t.TempDir(), "x"), checkpoint.RestoreOptions{FileOwners: true}); err != nil {
		t.Error(err)
	}
}
