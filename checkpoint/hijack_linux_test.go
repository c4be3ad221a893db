package checkpoint_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// The owner of the directory above the target may give its names to other files at
// any moment. A restore still writes, changes and removes only its own files.
func TestRestoreIsNotLedAway(t *testing.T) {
	task := newTask(t)
	c := commit(t, claim(t, task), checkpoint.Snapshot{State: checkpoint.Dir(makeState(t))})
	victim := t.TempDir()
	for _, err := range []error{
		os.WriteFile(filepath.Join(victim, "precious"), []byte("precious"), 0o600),
		os.Mkdir(filepath.Join(victim, "private"), 0o700),
		os.Chmod(victim, 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before := digest(t, os.DirFS(victim))
	failed := 0
	for range 50 {
		parent := tempDir(t)
		if err := os.Chmod(parent, 0o777); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var adversary sync.WaitGroup
		adversary.Go(func() { leadAway(stop, parent, victim) })
		if err := c.Restore(t.Context(), filepath.Join(parent, "x"), checkpoint.RestoreOptions{}); err != nil {
			failed++
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of more than one line: %v", err)
			}
		}
		close(stop)
		adversary.Wait()
		if now := digest(t, os.DirFS(victim)); now != before {
			t.Fatalf("the victim is\n%s\nand it was\n%s", now, before)
		}
	}
	t.Logf("the adversary made %d of 50 restores fail", failed)
}

// leadAway gives the name of the new directory to a link to victim.
func leadAway(stop chan struct{}, parent, victim string) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		entries, err := os.ReadDir(parent)
		if err != nil {
			continue
		}
		for _, e := range entries {
			name := filepath.Join(parent, e.Name())
			if e.IsDir() && strings.Contains(e.Name(), ".holdfast-") && os.Rename(name, filepath.Join(parent, "stolen")) == nil {
				_ = os.Symlink(victim, name) // if this fails, the name is free
				return
			}
		}
	}
}
