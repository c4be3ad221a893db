package checkpoint_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// large returns a snapshot whose offsets do not fit into a manifest.
func large() checkpoint.Snapshot {
	s := checkpoint.Snapshot{Offsets: map[string]string{}}
	for i := range 2000 {
		s.Offsets[fmt.Sprint("partition-", i)] = fmt.Sprint(i)
	}
	return s
}

// Commit does not read back what it has committed: if such a read failed, the commit
// would look as if it had not happened.
func TestCommitReadsNothingBack(t *testing.T) {
	inWorld(t, func(w *world) {
		task, job, _ := w.process()
		o := claim(w, task)
		commit(w, o, at(0)) // after its first commit, an owner collects
		synctest.Wait()
		before := job.Stats().Get.Calls
		if c := commit(w, o, large()); len(c.Offsets) != 2000 {
			t.Errorf("%d offsets", len(c.Offsets))
		}
		if got := job.Stats().Get.Calls - before; got != 0 {
			t.Errorf("a commit made %d Gets", got)
		}
	})
}

// If the last checks of a save fail, the save has been committed. Its error must be
// ErrUnknown.
func TestSaveThatIsNotConfirmedIsUnknown(t *testing.T) {
	for name, fault := range map[string]faultstore.Fault{
		"the store's proof":   {Kind: faultstore.FailBefore, Verb: "create", Key: manifests, On: 2, Err: backend.ErrPermission},
		"the newest's number": {Kind: faultstore.FailBefore, Verb: "list", Key: manifests, On: 2, Err: backend.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				task, _, _ := w.process(fault)
				if _, err := task.Save(w.Context(), at(1), checkpoint.SaveOptions{}); !errors.Is(err, checkpoint.ErrUnknown) {
					t.Errorf("Save: %v, want ErrUnknown", err)
				}
				w.wantHistory("1")
			})
		})
	}
}
