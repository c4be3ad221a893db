package checkpoint_test

import (
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A full save needs no earlier checkpoint.
func TestFullSaveAfterDamage(t *testing.T) {
	inWorld(t, func(w *world) {
		opts := checkpoint.Options{Retention: checkpoint.Retention{Last: checkpoint.KeepAll}}
		o, _ := w.ownerWith(opts)
		s := with(1, 100<<10)
		commit(w, o, s)
		synctest.Wait()
		for _, lost := range w.objects(segments) {
			w.remove(lost.Key)
		}
		next := with(1, 100<<10)
		next.State = next.State.Full()
		c := commit(w, o, next)
		dir := t.TempDir() + "/state"
		if err := c.Restore(w.Context(), dir, checkpoint.RestoreOptions{}); err != nil {
			t.Errorf("a full checkpoint: %v", err)
		}
		// The checkpoints after it are based on it.
		c = commit(w, o, with(1, 100<<10))
		if c.NewBytes > 16<<10 {
			t.Errorf("%d bytes were stored after it", c.NewBytes)
		}
		if err := c.Restore(w.Context(), dir, checkpoint.RestoreOptions{Replace: true}); err != nil {
			t.Errorf("the next one: %v", err)
		}
	})
}
