package checkpoint_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A directory that nobody may enter gets its mode after the directories in it have theirs.
func TestRestoreOfADirectoryThatNobodyMayEnter(t *testing.T) {
	if os.Geteuid() == 0 {
		asNobody(t)
		return
	}
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	c := commit(t, claim(t, newTask(t)), checkpoint.Snapshot{State: checkpoint.FS(fstest.MapFS{
		"closed":            {Mode: fs.ModeDir | 0o600, ModTime: at},
		"closed/inner":      {Mode: fs.ModeDir | 0o700, ModTime: at},
		"closed/inner/more": {Mode: fs.ModeDir | 0o755, ModTime: at},
	})})
	target := filepath.Join(t.TempDir(), "target")
	t.Cleanup(func() { // so that it can be removed
		_ = os.Chmod(target, 0o700)
		_ = os.Chmod(filepath.Join(target, "closed"), 0o700)
	})
	if err := c.Restore(t.Context(), target, checkpoint.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(target, "closed"))
	if err != nil || info.Mode() != fs.ModeDir|0o600 || !info.ModTime().Equal(at) {
		t.Errorf("%v, %v", info, err)
	}
}
