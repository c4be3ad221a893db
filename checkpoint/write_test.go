package checkpoint_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// If a restore cannot write data that it has found in the old state, it fails, and
// leaves the old state as it is.
func TestRestoreThatCannotWrite(t *testing.T) {
	state := fstest.MapFS{"f": {Data: []byte("one chunk"), Mode: 0o644}}
	made := commit(t, claim(t, newTask(t)), checkpoint.Snapshot{State: checkpoint.FS(state)})
	parent := tempDir(t)
	target := filepath.Join(parent, "state")
	if err := made.Restore(t.Context(), target, checkpoint.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	inTheWay := false
	meddle := func(checkpoint.Progress) { // called first when the new directory is empty
		if inTheWay {
			return
		}
		inTheWay = true
		entries, _ := os.ReadDir(parent)
		for _, e := range entries {
			if e.IsDir() && strings.HasPrefix(e.Name(), ".state.") {
				if err := os.Mkdir(filepath.Join(parent, e.Name(), "f"), 0o777); err != nil {
					t.Error(err)
				}
				return
			}
		}
		t.Errorf("there is %v", entries)
	}
	err := made.Restore(t.Context(), target, checkpoint.RestoreOptions{Replace: true, Progress: meddle})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("err = %v, want ErrExist", err)
	}
	if err := sameTree(os.DirFS(target), state); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
		t.Errorf("beside the target there is %v, %v", entries, err)
	}
}

// Data that occurs twice in a state is stored once and restored in both places. Zeros
// are restored as a hole, or as a file of zeros.
func TestDataThatOccursTwice(t *testing.T) {
	one := noise(30 << 10)
	long := slices.Concat(noise(50<<10), make([]byte, 1<<20), one)
	for _, c := range []struct {
		name  string
		state fstest.MapFS
		most  int64 // new bytes
	}{
		{"at once", fstest.MapFS{"one": {Data: one}, "d/two": {Data: one}, "f/three": {Data: one}}, 32 << 10},
		{"among others", fstest.MapFS{
			"one": {Data: one}, "d/two": {Data: one}, "zeros": {Data: make([]byte, 100)}, "page": {Data: make([]byte, 32<<10)}, "long": {Data: long}, "d/long": {Data: long},
		}, 120 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, file := range c.state {
				file.Mode = 0o644
			}
			made := commit(t, claim(t, newTask(t)), checkpoint.Snapshot{State: checkpoint.FS(c.state)})
			if made.NewBytes > c.most {
				t.Errorf("%d bytes are stored, want at most %d", made.NewBytes, c.most)
			}
			target := filepath.Join(tempDir(t), "state")
			for range 2 { // fetched first, and then taken from the old state
				if err := made.Restore(t.Context(), target, checkpoint.RestoreOptions{Replace: true}); err != nil {
					t.Fatal(err)
				}
				if err := sameTree(os.DirFS(target), c.state); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
