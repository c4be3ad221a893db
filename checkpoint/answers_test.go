package checkpoint_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// lostRace saves. Its first request fails, so that it may be applied later for all that the
// save knows. Before it tries again, others do something.
func (w *world) lostRace(others func()) error {
	task, _, store := w.process()
	store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", On: 1})
	done := make(chan error)
	go func() { done <- second(task.Save(w.Context(), with(9, 100<<10), checkpoint.SaveOptions{})) }()
	synctest.Wait() // it waits before it tries again
	others()
	return <-done
}

// A save that lost a race knows that, although a request of its own was in doubt.
func TestSaveThatLostARaceIsToldSo(t *testing.T) {
	save := func(w *world, n int) {
		task, _, _ := w.process()
		mustDo(w, second(task.Save(w.Context(), with(n, 100<<10), checkpoint.SaveOptions{})))
	}
	for name, c := range map[string]struct{ before, others int }{
		"for the first number, by one": {0, 1},
		"for the first number, by two": {0, 2},
		"by one":                       {2, 1},
		"by many":                      {2, 4},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				for n := range c.before {
					save(w, n)
				}
				err := w.lostRace(func() {
					for n := range c.others {
						save(w, 20+n)
					}
				})
				if !errors.Is(err, checkpoint.ErrConflict) || errors.Is(err, checkpoint.ErrUnknown) {
					t.Errorf("%v; want ErrConflict, and no doubt", err)
				}
				w.wantReadable()
				w.wantObjects(segments, len(w.objects(manifests))) // one for each save that was made
			})
		})
	}
}

// A save whose number was taken long after its base was made remains in doubt: it may have
// been saved and retired, and its number may have been taken again.
func TestSaveThatIsGoneIsInDoubt(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, _ := w.process()
		mustDo(t, second(task.Save(w.Context(), with(1, 100<<10), checkpoint.SaveOptions{})))
		time.Sleep(time.Hour)
		err := w.lostRace(func() {
			for n := range 3 {
				mustDo(t, second(task.Save(w.Context(), with(n, 100<<10), checkpoint.SaveOptions{})))
			}
		})
		if !errors.Is(err, checkpoint.ErrConflict) || !errors.Is(err, checkpoint.ErrUnknown) {
			t.Errorf("%v; want ErrConflict and ErrUnknown", err)
		}
	})
}

// A rollback that another writer has continued from before it was confirmed is done. Made
// once more, it would undo what that one has committed.
func TestRollbackThatWasFollowedIsNotMadeAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		commit(w, o, at(1)) // 2
		commit(w, o, at(2)) // 3
		mustDo(t, o.Release(w.Context()))
		creates, followed := 0, false
		task := w.hookedTask(keepAll, func(verb, _ string) {
			if verb == "create" {
				creates++
			}
			if verb == "list" && creates == 2 && !followed { // it was made
				followed = true
				next, _ := w.ownerWith(keepAll)
				commit(w, next, at(3))
			}
		})
		c, err := task.Rollback(w.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{})
		if err != nil || c.Seq != 2 || !followed {
			t.Errorf("%+v, %v, followed: %t", c, err, followed)
		}
		w.wantHistory("3 1 2")
	})
}

// An owner beside a checkpoint that is damaged does not list everything after each commit.
func TestOwnerBesideDamageCollectsSeldom(t *testing.T) {
	inWorld(t, func(w *world) {
		first, _ := w.ownerWith(keepAll)
		c := commit(w, first, with(1, 100<<10))
		commit(w, first, with(2, 100<<10))
		w.damage(format.ManifestKey(dir, c.Seq))
		lists := 0
		task := w.hookedTask(keepAll, func(verb, _ string) {
			if verb == "list" {
				lists++
			}
		})
		o := claim(w, task)
		commit(w, o, with(3, 100<<10))
		synctest.Wait()
		lists = 0
		const commits = 200
		for n := range commits {
			commit(w, o, at(n))
			synctest.Wait()
		}
		if lists > commits/5 {
			t.Errorf("%d lists after %d commits", lists, commits)
		}
	})
}
