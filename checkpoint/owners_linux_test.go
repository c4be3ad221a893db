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

// A file that runs as its owner must not come to run as whoever restores it.
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
		if err := os.Chmod(filepath.Join(state, "program"), special|0o755); err != nil { // which chown takes away
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

// ownedBy describes who owns what is in a directory, and the modes.
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

// ownedState makes a directory that belongs to several users, if this one may give
// files away.
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

// give gives a file away if this user may do that.
func give(path string, uid, gid int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, uid, gid)
}

func TestOwners(t *testing.T) {
	state := ownedState(t)
	c := commit(t, claim(t, newTask(t)), checkpoint.Snapshot{State: checkpoint.Dir(state).Owners()})
	target := filepath.Join(t.TempDir(), "x")
	for range 2 { // also over what is there
		if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{Owners: true, Replace: true}); err != nil {
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

// A change of an owner alone is a change, also of a directory or a link. So is the
// wish to save owners.
func TestChangeOfAnOwnerIsSeen(t *testing.T) {
	state := ownedState(t)
	o := claim(t, newTask(t))
	source := checkpoint.FS(&agedFS{FS: os.DirFS(state)})
	restored := func(c *checkpoint.Checkpoint) string {
		t.Helper()
		target := filepath.Join(t.TempDir(), "x")
		if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{Owners: true}); err != nil {
			t.Fatal(err)
		}
		return ownedBy(t, target)
	}
	bare := commit(t, o, checkpoint.Snapshot{State: source})
	if err := bare.Restore(t.Context(), filepath.Join(t.TempDir(), "x"), checkpoint.RestoreOptions{Owners: true}); !errors.Is(err, checkpoint.ErrOwners) {
		t.Errorf("owners that were not saved: %v", err)
	}
	c := commit(t, o, checkpoint.Snapshot{State: source.Owners()})
	if got, want := restored(c), ownedBy(t, state); got != want {
		t.Errorf("after owners were asked for:\n%s\nwant\n%s", got, want)
	}
	for _, name := range []string{"d", "link", "empty", "d/program", "."} {
		if err := give(filepath.Join(state, name), 4242, 4343); err != nil {
			t.Fatal(err)
		}
		c := commit(t, o, checkpoint.Snapshot{State: source.Owners()})
		if got, want := restored(c), ownedBy(t, state); got != want {
			t.Errorf("after the owner of %s changed:\n%s\nwant\n%s", name, got, want)
		}
	}
	again := commit(t, o, checkpoint.Snapshot{State: source})
	if err := again.Restore(t.Context(), filepath.Join(t.TempDir(), "x"), checkpoint.RestoreOptions{Owners: true}); !errors.Is(err, checkpoint.ErrOwners) {
		t.Errorf("owners that are not saved any more: %v", err)
	}
}

func TestOwnersThatAreNotKnownAreNotSaved(t *testing.T) {
	for name, source := range map[string]checkpoint.Source{
		"a file system in memory": checkpoint.FS(fstest.MapFS{"f": {Data: []byte("f")}}),
		"a stream":                checkpoint.Stream("f", strings.NewReader("f")),
	} {
		o := claim(t, newTask(t))
		_, err := o.Commit(t.Context(), checkpoint.Snapshot{State: source.Owners()})
		if !errors.Is(err, checkpoint.ErrOwners) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: err = %v, want ErrOwners", name, err)
		}
	}
	// No state has no owners, and every state of nothing has all.
	c := commit(t, claim(t, newTask(t)), checkpoint.Snapshot{})
	if err := c.Restore(t.Context(), filepath.Join(t.TempDir(), "x"), checkpoint.RestoreOptions{Owners: true}); err != nil {
		t.Error(err)
	}
}
