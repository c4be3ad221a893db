package atomicdir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A directory with a mount point in it is not replaced. A bind mount has the same
// device as the file system that it comes from.
func TestMountsAreNotReplaced(t *testing.T) {
	dir := t.TempDir()
	precious, target := filepath.Join(dir, "precious"), filepath.Join(dir, "tar get")
	for _, d := range []string{precious, filepath.Join(target, "a", "mnt")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	gold := filepath.Join(precious, "gold")
	if err := os.WriteFile(gold, []byte("gold"), 0o644); err != nil {
		t.Fatal(err)
	}
	late, err := Begin(target, true)
	if err != nil {
		t.Fatal(err)
	}
	point := filepath.Join(target, "a", "mnt")
	err = syscall.Mount(precious, point, "", syscall.MS_BIND, "")
	if errors.Is(err, os.ErrPermission) {
		_ = late.Abort()
		t.Skip("only root may mount")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	}()
	_, early := Begin(target, true)
	for when, err := range map[string]error{"before it is built": early, "before it is put in place": late.Commit(nil)} {
		if err == nil || !strings.Contains(err.Error(), point+" is a mount point") {
			t.Errorf("%s: %v", when, err)
		}
	}
	if _, err := os.Stat(gold); err != nil {
		t.Error(err)
	}
}

func TestUnescape(t *testing.T) {
	for escaped, want := range map[string]string{
		"/a": "/a", `/a\040b`: "/a b", `\134040`: `\040`, `/a\`: `/a\`, `/a\04`: `/a\04`, `/a\999`: `/a\999`,
	} {
		if got := unescape(escaped); got != want {
			t.Errorf("%s: %q, want %q", escaped, got, want)
		}
	}
}
