package checkpoint_test

import (
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A fork that is detached keeps who owns its files.
func TestDetachKeepsOwners(t *testing.T) {
	inWorld(t, func(w *world) {
		l := newLive(w)
		l.write("d/f", noise(100<<10))
		o, _ := w.owner()
		commit(w, o, checkpoint.Snapshot{State: checkpoint.Dir(l.dir).FileOwners()})
		w.fork(source, "try", checkpoint.Ref{})
		task, _ := w.named("try", checkpoint.Options{})
		entries := func() []checkpoint.Entry {
			c, err := task.Latest(w.Context())
			if err != nil {
				t.Fatal(err)
			}
			list, err := c.Entries(w.Context())
			if err != nil || len(list) != 3 || list[0].UID < 0 {
				t.Fatalf("%+v, %v; want owners", list, err)
			}
			return list
		}
		before := entries()
		mustDo(t, second(task.Detach(w.Context(), checkpoint.DetachOptions{})))
		if after := entries(); !slices.Equal(before, after) {
			t.Errorf("%+v, want %+v", after, before)
		}
	})
}
