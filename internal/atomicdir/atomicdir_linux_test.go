package atomicdir

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

func init() { syscall.Umask(0o022) } // so that no directory is shared by accident; shared ones have their own tests

// asOrdinaryUser takes root's right to ignore permissions from the test's thread, if
// it has it.
func asOrdinaryUser(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	runtime.LockOSThread()
	if err := syscall.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setfsuid(0); err != nil {
			panic(err)
		}
		runtime.UnlockOSThread()
	})
}

// A directory that its owner may not write can still be put in place and replaced:
// that takes only the right to write to its parent.
func TestReadOnlyDirectories(t *testing.T) {
	parent := tempDir(t)
	for dir, mode := range map[string]os.FileMode{filepath.Dir(parent): 0o755, parent: 0o777} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	asOrdinaryUser(t)
	target := filepath.Join(parent, "x")
	for _, gen := range []string{"one", "two", "three"} {
		d := begin(t, target, true)
		if err := fill(d.at(), gen); err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(func(dir *os.Root) error { return dir.Chmod(".", 0o555) }); err != nil {
			t.Fatal(err)
		}
		wantGeneration(t, target, gen)
		wantNames(t, parent, "x")
	}
}
