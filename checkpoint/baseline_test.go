package checkpoint_test

import (
	"fmt"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// An owner that could not read its base checkpoint, whichever request failed, reads
// it again at the next commit. Then it stores only what changed, and names the rest.
func TestCommitAfterTheBaseCouldNotBeRead(t *testing.T) {
	for k := 1; ; k++ {
		failed := false
		t.Run(fmt.Sprintf("request %d", k), func(t *testing.T) {
			inWorld(t, func(w *world) { failed = w.commitAfterFailedGet(k) })
		})
		if !failed {
			if k < 4 {
				t.Errorf("there were %d requests; want one for each of content, list of files and tables", k-1)
			}
			return
		}
	}
}

// commitAfterFailedGet makes Get number k fail. It reports whether there was a Get
// number k.
func (w *world) commitAfterFailedGet(k int) bool {
	files := fstest.MapFS{
		"1.sst": {Data: noise(200 << 10), Mode: 0o644},
		"2.sst": {Data: noise(300 << 10), Mode: 0o644},
		"log":   {Data: []byte("one"), Mode: 0o644},
	}
	s := checkpoint.Snapshot{State: checkpoint.FS(files).Immutable("*.sst"), Offsets: make(map[string]string)}
	for i := range 2000 { // too many for a manifest
		s.Offsets[fmt.Sprintf("orders/%d", i)] = fmt.Sprint(i)
	}
	first, _ := w.owner()
	commit(w, first, s)

	o, store := w.owner(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "get", Key: segments, On: k, Err: fs.ErrPermission})
	files["log"] = &fstest.MapFile{Data: []byte("two"), Mode: 0o644}
	_, err := o.Commit(w.Context(), s)
	if err == nil {
		store.Disarm()
		return false
	}
	store.Heal()
	c := commit(w, o, s)
	if c.NewBytes > 100<<10 {
		w.Errorf("%d bytes were stored for a file of 3", c.NewBytes)
	}
	state, err := c.FS(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	if got, want := digest(w, state), digest(w, files); got != want {
		w.Errorf("the state is\n%s\nwant\n%s", got, want)
	}
	return true
}
