package checkpoint_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// testRestore makes a restore test of the latest checkpoint, with faults.
func (w *world) testRestore(faults ...faultstore.Fault) *checkpoint.VerifyReport {
	w.Helper()
	task, _, _ := w.process(faults...)
	r, err := task.TestRestore(w.Context(), structure)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

func (w *world) wantProof(want *checkpoint.RestoreTest) {
	w.Helper()
	task, _, store := w.process()
	got, err := task.LastRestoreTest(w.Context())
	if err != nil || (got == nil) != (want == nil) || got != nil && *got != *want {
		w.Errorf("the last restore test: %+v, %v; want %+v", got, err, want)
	}
	if n := store.Calls(); n > 2 {
		w.Errorf("it took %d requests", n)
	}
}

func TestRestoreTest(t *testing.T) {
	inWorld(t, func(w *world) {
		o := w.library()
		committed := time.Now().UTC()
		w.wantProof(nil)
		if r, _ := w.verify(allData); r.RestoreTest != nil {
			t.Errorf("a restore test that nobody asked for: %+v", r.RestoreTest)
		}
		time.Sleep(time.Minute)
		first := checkpoint.RestoreTest{Seq: 6, Time: committed, At: time.Now().UTC()}
		if r := w.testRestore(); r.RestoreTest == nil || *r.RestoreTest != first {
			t.Errorf("%+v, want %+v", r.RestoreTest, first)
		}
		w.wantProof(&first)

		// Only the data of the current checkpoint is read.
		c := commit(w, o, with(10, 100<<10))
		committed = time.Now().UTC()
		synctest.Wait()
		r := w.testRestore()
		if r.DataRead < 100<<10 || r.DataRead > 110<<10 || r.RestoreTest.Seq != c.Seq {
			t.Errorf("%+v", r)
		}
		proof := checkpoint.RestoreTest{Seq: c.Seq, Time: committed, At: time.Now().UTC()}
		w.wantProof(&proof)

		// A damaged checkpoint proves nothing, and the earlier record is kept.
		time.Sleep(time.Minute)
		key := format.SegmentKey(dir, w.manifest(c.Seq).Checkpoint.Content.Segments[0].ID)
		data := w.read(key)
		data[20_000] ^= 1
		w.write(key, data)
		r = w.testRestore()
		w.wantProblem(r, "a byte flipped", key, checkpoint.Damaged, []uint64{c.Seq})
		if r.RestoreTest == nil || *r.RestoreTest != proof {
			t.Errorf("%+v, want %+v", r.RestoreTest, proof)
		}
		w.wantProof(&proof)

		// The record does not prevent a repair.
		if _, err := w.repair(fence); err != nil {
			t.Fatal(err)
		}
		w.wantClean(5)
		w.wantProof(&proof)
	})
}

func TestRestoreTestBesideFaults(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		w.testRestore(faultstore.Fault{Kind: faultstore.LoseReply, Verb: "put", On: 1})
		task, _, _ := w.process(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "put", Err: backend.ErrPermission})
		if r, err := task.TestRestore(w.Context(), structure); r == nil || r.Intact != 5 || !errors.Is(err, backend.ErrPermission) || !strings.Contains(err.Error(), "checkpoint 6 can be restored") {
			t.Errorf("%v, want ErrPermission, and that it can be restored", err)
		}
		// A record that cannot be read is not a damage of a checkpoint.
		w.write(format.RestoreTestKey(dir), []byte("rubbish"))
		r, _ := w.verify(allData)
		if len(r.Problems) > 0 || r.RestoreTest != nil || len(r.OtherObjects) != 1 {
			t.Errorf("%+v", r)
		}
		if _, err := task.LastRestoreTest(w.Context()); !errors.Is(err, checkpoint.ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
		w.testRestore()
		if r, _ := w.verify(structure); r.RestoreTest == nil || len(r.OtherObjects) > 0 {
			t.Errorf("after a new one: %+v", r)
		}
	})
}

// If the newest manifest cannot be read, the test of the one before proves nothing.
func TestRestoreTestBehindADamagedNewestManifest(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		w.write(format.ManifestKey(dir, 6), []byte("rubbish"))
		if r := w.testRestore(); r.RestoreTest != nil {
			t.Errorf("%+v", r.RestoreTest)
		}
		w.wantProof(nil)
	})
}

func TestTasksWithAProof(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		w.testRestore()
		_, job, _ := w.process()
		n := 0
		for task, err := range job.Tasks(w.Context()) {
			if n++; err != nil || task.Name() != "orders/7" {
				t.Errorf("%v, %v", task, err)
			}
		}
		if n != 1 {
			t.Errorf("%d tasks", n)
		}
	})
}
