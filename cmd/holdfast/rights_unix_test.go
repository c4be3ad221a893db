//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func becomeUser(uid string) error {
	id, err := strconv.Atoi(uid)
	if err != nil {
		return err
	}
	return syscall.Setuid(id)
}

// TestUnreadable runs as a user without rights, because root can read everything.
func TestUnreadable(t *testing.T) {
	work, err := os.MkdirTemp("", "holdfast-rights-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(work) })
	nobody := ""
	if os.Getuid() == 0 {
		nobody = "65534"
	}
	for path, mode := range map[string]os.FileMode{
		"file/readable": 0o644, "file/secret": 0, "dir/locked/inner": 0o644, "fine/data": 0o644, "sealed/x": 0o644,
	} {
		mustWrite(t, filepath.Join(work, path), "data")
		if err := os.Chmod(filepath.Join(work, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	for path, mode := range map[string]os.FileMode{
		".": 0o755, "dir/locked": 0, "sealed": 0o555, "store": 0o777, "fine": 0o755,
	} {
		path = filepath.Join(work, path)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(path, 0o755) })
	}
	run := func(args ...string) result {
		cmd := exec.Command("holdfast", args...)
		cmd.Env = append(os.Environ(), "HOLDFAST_TEST_UID="+nobody)
		cmd.Dir = work
		return wait(t, cmd, cmd.Run)
	}
	url := "file://" + work + "/store"
	if r := run("save", url, "orders", "fine"); r.code != 0 {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"file", []string{"save", url, "orders", "file"}, "file/secret: openat: permission denied; get access to it, or run as a user who has it"},
		{"directory below", []string{"save", url, "orders", "dir"}, "dir/locked: openat: permission denied"},
		{"directory", []string{"save", url, "orders", "dir/locked"}, "open dir/locked: permission denied"},
		{"in a directory", []string{"save", url, "orders", "dir/locked/inner"}, "directory dir/locked/inner cannot be read: permission denied"},
		{"store", []string{"save", "file://" + work + "/sealed/store", "orders", "fine"}, "permission denied; get access to it"},
		{"target", []string{"restore", url, "orders", "sealed/out"}, "permission denied; get access to it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(c.args...)
			if r.code != exitFailed || !strings.Contains(r.stderr, c.want) {
				t.Errorf("exit code %d, %s; want 1, %s", r.code, r.stderr, c.want)
			}
		})
	}
	if out := ok(t, "ls", url, "orders"); strings.Count(out, "\n") != 2 {
		t.Errorf("after failed saves: %s", out)
	}

	// A task that cannot be read hides no other.
	for _, name := range []string{"a", "b", "z"} {
		if r := run("save", url, name, "fine"); r.code != 0 {
			t.Fatalf("exit code %d: %s", r.code, r.stderr)
		}
	}
	for _, name := range []string{"b", "z"} {
		path := filepath.Join(work, "store", name)
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(path, 0o755) })
	}
	for _, args := range [][]string{{"ls", url}, {"gc", url}, {"verify", url}, {"prune", url, "--all-tasks", "--keep-last", "9"}} {
		r := run(args...)
		if r.code != exitFailed || !strings.Contains(r.stdout, "\na ") || !strings.Contains(r.stdout, "\norders ") ||
			!strings.Contains(r.stderr, "store/b/") || !strings.Contains(r.stderr, "holdfast: note: list file://"+work+"/store/z/") {
			t.Errorf("%s: exit code %d\n%s%s", args[0], r.code, r.stdout, r.stderr)
		}
	}
}
