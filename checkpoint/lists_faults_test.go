package checkpoint_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// A commit that could store a piece of its list, and not the index, leaves nothing.
func TestListThatCannotBeStored(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.ownerWith(keepAll)
		n := w.fullList(o)
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "put", Key: segments, On: 2, Err: backend.ErrPermission})
		if _, err := o.Commit(w.Context(), at(n+1)); !errors.Is(err, backend.ErrPermission) {
			t.Errorf("err = %v", err)
		}
		synctest.Wait()
		w.wantObjects(segments, 0)
		commit(w, o, at(n+1))
		w.wantObjects(segments, 2)
		w.wantListsOnly()
	})
}

// A commit that has room for its checkpoint in the manifest stores nothing of the list.
func TestSteadyCommitsStoreNoList(t *testing.T) {
	inWorld(t, func(w *world) {
		task, job, _ := w.open(keepAll)
		o := claim(w, task)
		n := w.fullList(o)
		commit(w, o, at(n+1)) // a piece, and the index
		before := job.Stats().Put.Calls
		for i := range 50 {
			commit(w, o, at(n+2+i))
		}
		if puts := job.Stats().Put.Calls - before; puts > 0 {
			t.Errorf("50 commits have stored %d segments", puts)
		}
	})
}

// A rollback stores nothing of a list if there is room for what differs.
func TestRollbackKeepsThePieces(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		n := w.fullList(o)
		for i := range 10 {
			commit(w, o, at(n+1+i))
		}
		mustDo(t, o.Release(w.Context()))
		synctest.Wait()
		task, job, _ := w.open(keepAll)
		mustDo(t, second(task.Rollback(w.Context(), checkpoint.Seq(7), checkpoint.RollbackOptions{})))
		if s := job.Stats(); s.Put.Calls > 0 {
			t.Errorf("the rollback has stored %d segments, of %d bytes", s.Put.Calls, s.Put.Bytes)
		}
		list, err := task.List(w.Context())
		if err != nil || len(list) != n+10 || list[0].Seq != 7 {
			t.Errorf("%d checkpoints, %v; want %d, number 7 first", len(list), err, n+10)
		}
		w.wantListsOnly()
	})
}

// An owner continues from an amendment. While it reads the list of that, another one prunes
// the task, and deletes the list.
func TestListIsDeletedWhileAnOwnerContinues(t *testing.T) {
	inWorld(t, func(w *world) {
		var armed atomic.Bool
		task := w.hookedTask(keepAll, func(verb, key string) {
			if verb == "get" && strings.Contains(key, segments) && armed.CompareAndSwap(true, false) {
				mustDo(w, second(w.mustTask().Prune(w.Context(), checkpoint.Retention{Last: 300}, checkpoint.PruneOptions{})))
			}
		})
		o := claim(w, task)
		n := w.fullList(o)
		commit(w, o, at(n+1))
		synctest.Wait()
		mustDo(t, second(w.mustTask().AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{At: checkpoint.Seq(7)})))
		armed.Store(true)
		if _, err := o.Commit(w.Context(), at(n+2)); err != nil {
			t.Errorf("err = %v", err)
		}
		if armed.Load() {
			t.Error("the owner has not read the list")
		}
		synctest.Wait()
		w.wantReadable()
	})
}

// A commit leaves room for amendments: what stands in its manifest of the list, and the edits,
// take no more than 20 KiB together, whatever amendments have added before.
func TestCommitLeavesRoomForAmendments(t *testing.T) {
	withoutRaceDetector(t)
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		w.noisy(o, 1400)
		taken := func() (inline, edits int) {
			m := w.manifest(w.newestSeq())
			inline, err := format.ListSize(m.Retained)
			mustDo(w, err)
			data, err := json.Marshal(m.Edits)
			mustDo(w, err)
			return inline, len(data)
		}
		for n := 1400; ; n++ {
			if inline, _ := taken(); inline > 11_600 && inline < 11_900 {
				break
			}
			s := at(n)
			s.Savepoint = fmt.Sprintf("%x", noise(60)) + fmt.Sprint("-", n)
			commit(w, o, s)
		}
		task := w.mustTask()
		list, err := task.List(w.Context())
		mustDo(t, err)
		s := takeInventory(w, w.bucket)
		mustDo(t, second(listOf(s.newest, func(c *format.Chunk) ([]byte, error) { return s.decode(c, nil) })))
		at0 := 1 + len(s.newest.Retained)
		if len(s.newest.Pieces) < 3 {
			t.Fatalf("there are %d pieces", len(s.newest.Pieces))
		}
		for i := range s.newest.Pieces {
			for k := range min(21/len(s.newest.Pieces), s.newest.Pieces[i].N) {
				note := checkpoint.Note{Text: strings.Repeat("n", format.MaxNote)}
				mustDo(t, second(task.Annotate(w.Context(), checkpoint.Seq(list[at0+k].Seq), note)))
			}
			at0 += s.newest.Pieces[i].N
		}
		inline, edits := taken()
		if inline+edits < 24<<10 {
			t.Fatalf("amendments have made %d bytes of edits, beside %d", edits, inline)
		}
		commit(w, o, at(0))
		if inline, edits := taken(); inline+edits > 20<<10 {
			t.Errorf("after a commit %d bytes stand in the manifest, and %d of edits", inline, edits)
		}
		w.wantReadable()
	})
}
