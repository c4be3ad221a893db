package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOwners(t *testing.T) {
	state, url, out := makeState(t, "state "), fileURL(t.TempDir()), filepath.Join(t.TempDir(), "out")
	ok(t, "save", url, "bare", state)
	ok(t, "save", url, "owned", state, "--owners")
	for task, want := range map[string]string{"bare": "", "owned": fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())} {
		text := ok(t, "show", url, task)
		if strings.Contains(text, "OWNER") != (want != "") || !strings.Contains(text, want) {
			t.Errorf("show %s does not say %q once:\n%s", task, want, text)
		}
		if strings.Contains(ok(t, "show", url, task, "--json"), `"uid": `) != (want != "") {
			t.Errorf("show %s --json has a uid: %v", task, want == "")
		}
	}
	ok(t, "restore", url, "owned", out, "--owners")
	if diff := difference(t, out, state); diff != "" {
		t.Error(diff)
	}
	r := holdfast(t, "restore", url, "bare", out, "--owners", "--force")
	if want := "owners cannot be kept: checkpoint 1 was saved without them; leave --owners out to do without\n"; r.code != exitFailed || !strings.HasSuffix(r.stderr, want) {
		t.Errorf("exit code %d, %s; want 1, %s", r.code, r.stderr, want)
	}
}

// A user who may not change owners is told before anything is fetched.
func TestOwnersAreNotPermitted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may give files away")
	}
	work, err := os.MkdirTemp("", "holdfast-owners-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(work) })
	state, url, home := filepath.Join(work, "state"), "file://"+work+"/store", filepath.Join(work, "home")
	mustWrite(t, filepath.Join(state, "f"), "data")
	for _, err := range []error{
		os.Chown(filepath.Join(state, "f"), 12345, 54321), os.Mkdir(home, 0o700), os.Chown(home, 65534, 65534), os.Chmod(work, 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(t, "save", url, "orders", state, "--owners")
	if err := filepath.WalkDir(filepath.Join(work, "store"), func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, 65534, 65534)
	}); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) result {
		cmd := exec.Command("holdfast", args...)
		cmd.Env = append(os.Environ(), "HOLDFAST_TEST_UID=65534")
		return wait(t, cmd, cmd.Run)
	}
	out := filepath.Join(home, "out")
	r := run("restore", url, "orders", out, "--owners")
	want := "owners cannot be kept: giving files to user 0 and group 0, which takes root: operation not permitted; leave --owners out to do without\n"
	if r.code != exitFailed || !strings.HasSuffix(r.stderr, want) {
		t.Errorf("exit code %d, %s; want 1, %s", r.code, r.stderr, want)
	}
	if left, _ := os.ReadDir(home); len(left) != 0 {
		t.Errorf("it left %v", left)
	}
	if r := run("restore", url, "orders", out); r.code != 0 {
		t.Errorf("without owners: exit code %d, %s", r.code, r.stderr)
	}
}

// A year that RFC 3339 cannot represent must not prevent the output.
func TestShowTimesOfAnyYear(t *testing.T) {
	state, err := os.MkdirTemp("/dev/shm", "holdfast-test-")
	if err != nil {
		t.Skip("there is no file system in memory")
	}
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	url := fileURL(t.TempDir())
	mustWrite(t, filepath.Join(state, "f"), "data")
	far := unix.Timespec{Sec: 1 << 40}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(state, "f"), []unix.Timespec{far, far}, 0); err != nil {
		t.Fatal(err)
	}
	ok(t, "save", url, "orders", state)
	doc := ok(t, "show", url, "orders", "--json")
	if !json.Valid([]byte(doc)) || !strings.Contains(doc, `"mtime": null`) {
		t.Error(doc)
	}
	if text := ok(t, "show", url, "orders"); !strings.Contains(text, "36812-") {
		t.Error(text)
	}
}
