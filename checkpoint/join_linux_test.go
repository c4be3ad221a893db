package checkpoint_test

import (
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// Unchanged files of a part are not opened again.
func TestUnchangedPartsAreNotOpened(t *testing.T) {
	l := newLive(t)
	l.write("f", []byte("one"))
	o := claim(t, newTask(t))
	state := func() checkpoint.Source {
		return checkpoint.Join(map[string]checkpoint.Source{"a": checkpoint.FS(&l.opened), "b": checkpoint.Stream("s", strings.NewReader("stream"))})
	}
	commit(t, o, checkpoint.Snapshot{State: state()})
	l.saved()
	commit(t, o, checkpoint.Snapshot{State: state()})
	l.wantOpened()
}
