package checkpoint_test

import (
	"fmt"
	"testing"
	"testing/fstest"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A list of thousands of files lies in leaves, whose list lies in the segments too, so the
// manifest stays small, and what did not change is not stored again.
func TestManyFiles(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(checkpoint.Options{Memory: 4 << 20})
		files := fstest.MapFS{}
		for n := range 5000 {
			files[fmt.Sprintf("d%02d/f%04d", n/100, n)] = &fstest.MapFile{Data: fmt.Appendf(nil, "file %d", n), Mode: 0o644}
		}
		save := func() *checkpoint.Checkpoint {
			return commit(w, o, checkpoint.Snapshot{State: checkpoint.FS(files)})
		}
		first := save()
		if m := w.manifest(first.Seq); m.Checkpoint.Content == nil || len(m.Checkpoint.Content.TreeAt) == 0 {
			t.Errorf("the content of the first is %+v", m.Checkpoint)
		}
		files["d25/f2500"] = &fstest.MapFile{Data: []byte("another"), Mode: 0o600}
		second := save()
		if second.NewBytes > 32<<10 {
			t.Errorf("one of 5000 files changed, and %d bytes were stored", second.NewBytes)
		}
		for _, c := range []*checkpoint.Checkpoint{first, second} {
			fsys, err := c.FS(w.Context())
			if err != nil {
				t.Fatal(err)
			}
			files["d25/f2500"] = &fstest.MapFile{Data: []byte("file 2500"), Mode: 0o644}
			if c == second {
				files["d25/f2500"] = &fstest.MapFile{Data: []byte("another"), Mode: 0o600}
			}
			if got, want := describeFS(t, fsys), describeFS(t, files); got != want {
				t.Errorf("checkpoint %d does not give back its state", c.Seq)
			}
		}
		// The same after a restart.
		next, _ := w.owner()
		if c := commit(w, next, checkpoint.Snapshot{State: checkpoint.FS(files)}); c.NewBytes > second.NewBytes { // the inline data is stored again
			t.Errorf("after a restart, with nothing changed, %d bytes were stored, %d before", c.NewBytes, second.NewBytes)
		}
	})
}
