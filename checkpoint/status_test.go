package checkpoint_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/checkpoint"
)

func TestStatus(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, store := w.process()
		if s, err := task.Status(w.Context()); err != nil || !reflect.DeepEqual(s, checkpoint.Status{}) {
			t.Errorf("before the first claim: %+v, %v", s, err)
		}
		o := claim(w, task)
		if s, err := task.Status(w.Context()); err != nil || s.Manifest != 1 || !s.Claimed || s.Latest != nil {
			t.Errorf("after the claim: %+v, %v", s, err)
		}
		commit(w, o, at(1))
		synctest.Wait() // for the owner's collection
		before := store.Calls()
		s, err := task.Status(w.Context())
		if err != nil || s.Manifest != 2 || s.Latest == nil || s.Latest.Offsets["in"] != "1" {
			t.Errorf("after the commit: %+v, %v", s, err)
		}
		if n := store.Calls() - before; n != 2 {
			t.Errorf("took %d requests, want 2", n)
		}
	})
}

// A damaged checkpoint does not hide the others.
func TestCheckpointsBesideADamagedOne(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		for n := range 3 {
			commit(w, o, at(n+1))
		}
		store := w.bucket.Open()
		damaged := "orders_2f7/manifests/fffffffffffffffc" // number 3
		if _, err := store.Put(w.Context(), damaged, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		task, _, _ := w.process()
		list, err := task.List(w.Context())
		if !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), damaged) {
			t.Errorf("err = %v, want ErrCorrupt that names %s", err, damaged)
		}
		if len(list) != 2 || list[0].Seq != 4 || list[1].Seq != 2 {
			t.Errorf("the others: %v", list)
		}
	})
}

// If the newest manifest is damaged, older checkpoints can still be read, and none of
// them is taken for the newest.
func TestOlderCheckpointsBehindADamagedManifest(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		named := at(1)
		named.Savepoint = "first"
		commit(w, o, named)
		commit(w, o, at(2))
		commit(w, o, at(3))
		newest := "orders_2f7/manifests/fffffffffffffffb" // number 4
		if _, err := w.bucket.Open().Put(w.Context(), newest, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		task, _, _ := w.process()
		for at, want := range map[string]string{"first": "1", "2": "1", "3": "2"} {
			if c, err := task.Get(w.Context(), ref(at)); err != nil || c.Offsets["in"] != want {
				t.Errorf("At(%q) = %+v, %v; want offset %s", at, c, err, want)
			}
		}
		list, err := task.List(w.Context())
		if !errors.Is(err, checkpoint.ErrCorrupt) || len(list) != 2 {
			t.Errorf("Checkpoints: %d, %v; want 2 and ErrCorrupt", len(list), err)
		}
		_, newestErr := task.Latest(w.Context())
		_, damagedErr := task.Get(w.Context(), checkpoint.Seq(4))
		_, claimErr := task.Claim(w.Context(), checkpoint.ClaimOptions{})
		for what, err := range map[string]error{"Newest": newestErr, "At(4)": damagedErr, "Claim": claimErr} {
			if !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), newest) {
				t.Errorf("%s: %v, want ErrCorrupt that names %s", what, err, newest)
			}
		}
	})
}
