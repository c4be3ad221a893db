package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallDisk mounts a file system of one megabyte.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m")
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting a small file system is not permitted; TestStoreIsFull injects the error")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestDiskOfTheStoreIsFull(t *testing.T) {
	disk := smallDisk(t)
	url := fileURL(filepath.Join(disk, "store"))
	before, after := makeState(t, "before "), makeState(t, "after ")
	ok(t, "save", url, "orders", before)
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 820<<10), 0o666); err != nil {
		t.Fatal(err)
	}
	r := holdfast(t, "save", url, "orders", after)
	if want := "no space left on device; nothing was saved; make room in the store and try again\n"; r.code != exitFailed || !strings.HasSuffix(r.stderr, want) {
		t.Errorf("exit code %d, %s; want 1, %s", r.code, r.stderr, want)
	}
	wantCheckpoints(t, url, before, 1)
	if segments, _ := filepath.Glob(filepath.Join(disk, "store", "orders", "segments", "*")); len(segments) != 1 {
		t.Errorf("segments: %q", segments)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	ok(t, "save", url, "orders", after)
	wantCheckpoints(t, url, after, 2, 1)
}

func TestDiskOfTheTargetIsFull(t *testing.T) {
	disk, url := smallDisk(t), fileURL(t.TempDir())
	before, after := makeState(t, "before "), makeState(t, "after ")
	mustWrite(t, filepath.Join(after, "more"), strings.Repeat("more ", 200_000))
	ok(t, "save", url, "orders", before)
	ok(t, "save", url, "orders", after)
	out := filepath.Join(disk, "out")
	ok(t, "restore", url, "orders", out, "--at", "1")
	r := holdfast(t, "restore", url, "orders", out, "--force")
	if want := "no space left on device; make room there and try again\n"; r.code != exitFailed || !strings.HasSuffix(r.stderr, want) {
		t.Errorf("exit code %d, %s; want 1, %s", r.code, r.stderr, want)
	}
	if diff := difference(t, out, before); diff != "" {
		t.Error(diff)
	}
	if left, _ := os.ReadDir(disk); len(left) != 1 {
		t.Errorf("beside the target: %v", left)
	}
}

// TestReadOnlyDisk checks that the message names the cause, and not a missing
// permission.
func TestReadOnlyDisk(t *testing.T) {
	disk, state := smallDisk(t), makeState(t, "state ")
	url := fileURL(filepath.Join(disk, "store"))
	ok(t, "save", url, "orders", state)
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(state, "more"), noise("more", 100_000))
	for _, args := range [][]string{
		{"save", url, "orders", state},
		{"rollback", url, "orders", "1"},
		{"restore", url, "orders", filepath.Join(disk, "out")},
		{"save", fileURL(filepath.Join(disk, "new")), "orders", state},
	} {
		r := holdfast(t, args...)
		if want := "read-only file system; mount it for writing, or choose another place\n"; r.code != exitFailed ||
			!strings.HasSuffix(r.stderr, want) || strings.Contains(r.stderr, "permission") {
			t.Errorf("%s: exit code %d, %s; want 1, %s", args[0], r.code, r.stderr, want)
		}
	}
	// Reading still works.
	out := filepath.Join(t.TempDir(), "out")
	ok(t, "restore", url, "orders", out)
	if diff := difference(t, out, state); diff != "" {
		t.Error(diff)
	}
}
