//go:build unix

package checkpoint_test

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A file gets its permissions whatever the umask of the process is, and its time, if it has none, one or
// several chunks.
func TestPermissionsWhateverTheUmaskIs(t *testing.T) {
	modes := []os.FileMode{0, 0o400, 0o444, 0o600, 0o644, 0o666, 0o755, 0o777, 0o644 | os.ModeSticky}
	sizes := []int{0, 10, 300 << 10}
	when := time.Unix(1_700_000_000, 123_456_789)
	eachFile := func(do func(name string, mode os.FileMode, size int) error) {
		for _, dir := range []string{".", "d"} {
			for _, mode := range modes {
				for _, size := range sizes {
					if err := do(path.Join(dir, fmt.Sprintf("%04o-%d", mode, size)), mode, size); err != nil {
						t.Error(err)
					}
				}
			}
		}
	}
	state := fstest.MapFS{}
	eachFile(func(name string, mode os.FileMode, size int) error {
		state[name] = &fstest.MapFile{Data: noise(size), Mode: mode, ModTime: when}
		return nil
	})
	c := commit(t, claim(t, newTask(t)), checkpoint.Snapshot{State: checkpoint.FS(state)})
	for _, umask := range []int{0, 0o022, 0o077} {
		target := filepath.Join(tempDir(t), "state")
		old := syscall.Umask(umask)
		err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{})
		syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		eachFile(func(name string, mode os.FileMode, size int) error {
			info, err := os.Lstat(filepath.Join(target, filepath.FromSlash(name)))
			if err == nil && (info.Mode() != mode || info.Size() != int64(size) || !info.ModTime().Equal(when)) {
				err = fmt.Errorf("umask %04o: %s is %v, %d bytes, of %v", umask, name, info.Mode(), info.Size(), info.ModTime())
			}
			return err
		})
	}
}
