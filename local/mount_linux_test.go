package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
)

// mountTmpfs mounts a small file system. Where the test has no privileges for that,
// TestEveryStepFails tests the same by injected errors.
func mountTmpfs(t *testing.T, dir, options string) {
	t.Helper()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting takes privileges; TestEveryStepFails injects the errors")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// A full disk loses nothing that was written before, shows no part of an object, and
// works again once there is space.
func TestDiskFull(t *testing.T) {
	for name, options := range map[string]string{"bytes": "size=1m", "inodes": "size=64m,nr_inodes=12"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mountTmpfs(t, dir, options)
			s, err := New(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer mustClose(t, s) // before the file system is unmounted
			data := make([]byte, 150<<10)
			var keys []string
			for i := 0; err == nil && i < 100; i++ {
				key := fmt.Sprintf("d/%02d", i)
				if _, err = writes[i%2].call(s, t.Context(), key, data); err == nil {
					keys = append(keys, key)
				}
			}
			wantKind(t, "a write to a full disk", err, backend.ErrNoSpace)
			_, err = s.Create(t.Context(), "new/directory/k", data)
			wantKind(t, "Create in a new directory on a full disk", err, backend.ErrNoSpace)
			_, err = s.Put(t.Context(), keys[0], data)
			wantKind(t, "Put over an object on a full disk", err, backend.ErrNoSpace)
			if left := temporary(t, dir); left != nil {
				t.Errorf("left: %q", left)
			}
			if got := list(t, s, "", ""); !slices.Equal(got, keys) {
				t.Errorf("List = %q, want %q", got, keys)
			}
			for _, key := range keys {
				if got := content(t, s, key); got != string(data) {
					t.Errorf("%s: %d bytes, want %d", key, len(got), len(data))
				}
			}
			if err := s.Delete(t.Context(), keys...); err != nil {
				t.Errorf("Delete on a full disk = %v", err)
			}
			mustCreate(t, s, "d/again", "data")
		})
	}
}

func TestReadOnlyFileSystem(t *testing.T) {
	dir := t.TempDir()
	mountTmpfs(t, dir, "")
	s, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s, "a/k", "data")
	mustClose(t, s)
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	s, err = New(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Create(t.Context(), "a/new", nil)
	wantKind(t, "Create", err, backend.ErrPermission)
	_, err = s.Put(t.Context(), "a/k", nil)
	wantKind(t, "Put", err, backend.ErrPermission)
	wantKind(t, "Delete", s.Delete(t.Context(), "a/k"), backend.ErrPermission)
	if got := content(t, s, "a/k"); got != "data" {
		t.Errorf("Get = %q", got)
	}
	if got := list(t, s, "", ""); !slices.Equal(got, []string{"a/k"}) {
		t.Errorf("List = %q", got)
	}
}

func TestTwoFileSystems(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o777); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, filepath.Join(dir, "a"), "")
	s := openStore(t, dir)
	for _, v := range writes {
		_, err := v.call(s, t.Context(), "a/k", nil)
		wantKind(t, v.name+" on another file system", err, backend.ErrUnsupported)
	}
	if left := temporary(t, dir); left != nil {
		t.Errorf("left: %q", left)
	}
}

// Another file system is mounted over the directory while a handle is open.
func TestMountedOver(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	mustCreate(t, s, "k", "data")
	mountTmpfs(t, dir, "")
	wantAll(t, verbs(s, "k"), backend.ErrNoStore)
}

// The directories of proc cannot be fsynced. A store on such a file system is refused
// before anything is written.
func TestNoFsyncForDirectories(t *testing.T) {
	proc, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	if err := syncDir(proc); !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("syncDir(/proc) = %v, want ErrUnsupported", err)
	}
}
