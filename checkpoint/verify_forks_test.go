package checkpoint_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// What a fork needs is missing: that is damage of the fork, and of the source, and a
// repair of the source keeps it in its list, so that it is known.
func TestVerifyAFork(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		key := w.objects(segments)[0].Key
		w.fork(source, "try", checkpoint.Ref{})
		commit(w, o, with(2, 100<<10))
		mustDo(t, o.Release(w.Context()))
		synctest.Wait()
		data := w.read(key)
		w.remove(key)
		for name, want := range map[string]uint64{"try": 1, source: 2} {
			task, _ := w.named(name, checkpoint.Options{})
			r, err := task.Verify(w.Context(), structure)
			if err != nil || len(r.Problems) != 1 || r.Problems[0].Object != key || !slices.Equal(r.Problems[0].Affects, []uint64{want}) {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
			if name == source {
				fixed, err := task.Repair(w.Context(), r, checkpoint.RepairOptions{})
				if err != nil || len(fixed.Dropped) != 0 || !slices.Equal(fixed.Left, []uint64{2}) {
					t.Errorf("%+v, %v", fixed, err)
				}
			}
		}
		w.write(key, data)
		w.wantVerified("try", 1)

		// The source holds nothing, although the fork needs it: somebody brought back an
		// old manifest, for example.
		m := w.manifest(w.newestSeq())
		m.Seq, m.Kind, m.Base, m.Held = m.Seq+1, format.KindRelease, nil, nil
		w.put(m)
		fork, _ := w.named("try", checkpoint.Options{})
		r, err := fork.Verify(w.Context(), structure)
		if err != nil || r.Unheld == nil || *r.Unheld != (checkpoint.ForkInfo{Task: source, Seq: 2}) || !errors.Is(r.Err(), checkpoint.ErrCorrupt) || r.Intact != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// A verification tells of what is kept for forks that do not need it, and changes nothing.
func TestVerifyTellsOfNeedlessHolds(t *testing.T) {
	for name, c := range map[string]struct {
		then func(w *world)
		want []checkpoint.NeedlessHold
	}{
		"needed": {func(*world) {}, nil},
		"it shares nothing any more": {func(w *world) {
			fork, _ := w.named("try", lastOne)
			full := with(2, 100<<10)
			full.State = full.State.Full()
			mustDo(w, second(fork.Save(w.Context(), full, checkpoint.SaveOptions{})))
		}, []checkpoint.NeedlessHold{{ForkInfo: checkpoint.ForkInfo{Task: "try", Seq: 2}}}},
		"removed by hand": {func(w *world) {
			for _, o := range w.objects("") {
				if strings.HasPrefix(o.Key, "try/") {
					w.remove(o.Key)
				}
			}
		}, []checkpoint.NeedlessHold{{ForkInfo: checkpoint.ForkInfo{Task: "try", Seq: 2}, Lost: true}}},
		"its newest manifest is damaged": {func(w *world) {
			w.damage(format.ManifestKey("try", 3))
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, _ := w.ownerWith(lastOne)
				commit(w, o, with(1, 100<<10)) // 2
				w.fork(source, "try", checkpoint.Ref{})
				first, _ := w.named("try", checkpoint.Options{})
				mustDo(t, second(first.Delete(w.Context(), checkpoint.DeleteOptions{})))
				w.fork(source, "try", checkpoint.Ref{}) // its number 3
				c.then(w)
				seq := w.newestSeq()
				task, _ := w.named(source, checkpoint.Options{})
				r, err := task.Verify(w.Context(), structure)
				if err != nil || r.Err() != nil || !slices.Equal(r.NeedlessHolds, c.want) || w.newestSeq() != seq {
					t.Errorf("%+v, %v; want %+v", r, err, c.want)
				}
				_, err = task.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true, DryRun: true})
				if lost := len(c.want) > 0 && c.want[0].Lost; lost != (err != nil && strings.Contains(err.Error(), "'holdfast gc --lost' of \"orders/7\"")) {
					t.Errorf("deletion: %v", err)
				}
			})
		})
	}
}

// A task that was deleted is said to be so.
func TestVerifyOfADeletedTask(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		commit(w, o, with(1, 100<<10))
		task, _ := w.named(source, checkpoint.Options{})
		for _, deleted := range []bool{false, true} {
			if deleted {
				mustDo(t, second(task.Delete(w.Context(), checkpoint.DeleteOptions{Fence: true})))
			}
			r, err := task.Verify(w.Context(), structure)
			if err != nil || r.Deleted != deleted || r.Err() != nil {
				t.Errorf("%+v, %v; deleted: %t", r, err, deleted)
			}
			if done, err := task.Collect(w.Context(), checkpoint.CollectOptions{}); err != nil || done.Deleted != deleted {
				t.Errorf("%+v, %v; deleted: %t", done, err, deleted)
			}
		}
	})
}
