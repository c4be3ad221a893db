package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A lyingList is a store whose listings show wrong sizes or leave objects out. Its
// Get is right.
type lyingList struct {
	backend.Store
	show func(prefix string, o backend.Object) (backend.Object, bool)
}

func (s lyingList) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		for o, err := range s.Store.List(ctx, prefix, after) {
			shown := true
			if err == nil {
				o, shown = s.show(prefix, o)
			}
			if shown && !yield(o, err) {
				return
			}
		}
	}
}

// hides leaves an object out of some of the listings that should show it.
func hides(key string, from func(prefix string) bool) func(string, backend.Object) (backend.Object, bool) {
	return func(prefix string, o backend.Object) (backend.Object, bool) { return o, o.Key != key || !from(prefix) }
}

// resizes shows an object with a wrong size.
func resizes(key string, by int64) func(string, backend.Object) (backend.Object, bool) {
	return func(_ string, o backend.Object) (backend.Object, bool) {
		if o.Key == key {
			o.Size = max(o.Size+by, 0)
		}
		return o, true
	}
}

// through opens the task on a store with wrong listings.
func (w *world) through(show func(string, backend.Object) (backend.Object, bool)) *checkpoint.Task {
	w.Helper()
	job := newJob(w, lyingList{w.bucket.Open(), show}, checkpoint.Options{Backoff: backend.Backoff{Attempts: 2}})
	task, err := job.Task("orders/7")
	if err != nil {
		w.Fatal(err)
	}
	return task
}

// Whatever object a listing leaves out or shows with another size: what Get finds is
// neither missing nor damaged, and a repair removes nothing.
func TestVerifyDoesNotRelyOnAListing(t *testing.T) {
	everywhere := func(string) bool { return true }
	inVerifysOwn := func(prefix string) bool { return prefix == dir+"/" }
	for what, lie := range map[string]func(key string) func(string, backend.Object) (backend.Object, bool){
		"left out of one":     func(key string) func(string, backend.Object) (backend.Object, bool) { return hides(key, inVerifysOwn) },
		"left out of all":     func(key string) func(string, backend.Object) (backend.Object, bool) { return hides(key, everywhere) },
		"a byte too short":    func(key string) func(string, backend.Object) (backend.Object, bool) { return resizes(key, -1) },
		"a byte too long":     func(key string) func(string, backend.Object) (backend.Object, bool) { return resizes(key, 1) },
		"without any content": func(key string) func(string, backend.Object) (backend.Object, bool) { return resizes(key, -1<<40) },
	} {
		t.Run(what, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.library()
				all := w.objects("")
				for _, o := range all[1:] { // another test covers the newest manifest
					task := w.through(lie(o.Key))
					for _, opts := range []checkpoint.VerifyOptions{structure, allData} {
						r, err := task.Verify(w.Context(), opts)
						if err != nil || r.Intact != 5 || len(r.Problems) > 0 {
							t.Fatalf("%s: %+v, %v; want 5 intact", o.Key, r, err)
						}
						if n := len(w.objects(segments)); r.Live.Segments != n {
							t.Errorf("%s: %d segments of %d are live", o.Key, r.Live.Segments, n)
						}
						if out, err := task.Repair(w.Context(), r, fence); err != nil || len(out.Dropped) > 0 {
							t.Errorf("%s: %+v, %v; want nothing", o.Key, out, err)
						}
					}
				}
				if left := w.objects(""); !slices.Equal(left, all) {
					t.Errorf("%d objects are left of %d", len(left), len(all))
				}
			})
		})
	}
}

// If an object can neither be listed nor read, it is unknown whether it is missing.
func TestVerifyOfWhatIsNeitherListedNorRead(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		for _, o := range w.objects(segments) {
			var task *checkpoint.Task
			refusing := refusedGet{lyingList{w.bucket.Open(), hides(o.Key, func(string) bool { return true })}, o.Key}
			job := newJob(t, refusing, checkpoint.Options{})
			task, err := job.Task("orders/7")
			if err != nil {
				t.Fatal(err)
			}
			r, err := task.Verify(w.Context(), structure)
			if !errors.Is(err, backend.ErrPermission) || errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), o.Key) {
				t.Errorf("%s: %+v, %v; want ErrPermission", o.Key, r, err)
			}
		}
	})
}

// refusedGet refuses to read one object.
type refusedGet struct {
	backend.Store
	key string
}

func (s refusedGet) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	if key == s.key {
		return 0, &backend.Error{Op: "get", Store: "refusing", Key: key, Err: backend.ErrPermission}
	}
	return s.Store.Get(ctx, key, offset, p)
}

// If a listing leaves out the newest manifest, this may have retired what the one
// before retains. Then a missing segment is not damage.
func TestVerifyBehindAHiddenManifest(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(checkpoint.Options{Retention: checkpoint.Retention{Last: 1}})
		commit(w, o, with(1, 100<<10))
		last := commit(w, o, with(2, 100<<10))
		synctest.Wait() // the segments of the first one are deleted
		key := format.ManifestKey(dir, last.Seq)
		before := w.objects("")

		// One listing leaves it out, later ones do not.
		listings := 0
		task := w.through(hides(key, func(string) bool { listings++; return listings == 1 }))
		if r, err := task.Verify(w.Context(), allData); err != nil || r.Intact != 1 || len(r.Problems) > 0 || r.Manifest != last.Seq {
			t.Errorf("left out once: %+v, %v; want 1 intact", r, err)
		}

		// All listings leave it out.
		task = w.through(hides(key, func(string) bool { return true }))
		r, err := task.Verify(w.Context(), allData)
		if !errors.Is(err, backend.ErrUnsupported) || errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(fmt.Sprint(err), key) {
			t.Errorf("left out always: %+v, %v; want ErrUnsupported", r, err)
		}
		if after := w.objects(""); !slices.Equal(before, after) {
			t.Errorf("%v are left of %v", after, before)
		}
	})
}

// A rollback does not rely on a listing either.
func TestRollbackDoesNotRelyOnAListing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.library()
		for _, o := range w.objects(segments) {
			task := w.through(hides(o.Key, func(string) bool { return true }))
			if c, err := task.Rollback(w.Context(), checkpoint.Seq(3), checkpoint.RollbackOptions{Fence: true}); err != nil || c.Seq != 3 {
				t.Errorf("%s is not listed: %v", o.Key, err)
			}
		}
		refusing := refusedGet{lyingList{w.bucket.Open(), hides(w.objects(segments)[0].Key, func(string) bool { return true })}, w.objects(segments)[0].Key}
		task, err := newJob(t, refusing, checkpoint.Options{}).Task("orders/7")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := task.Rollback(w.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{}); !errors.Is(err, backend.ErrPermission) || errors.Is(err, checkpoint.ErrCorrupt) {
			t.Errorf("what cannot be read: %v, want ErrPermission", err)
		}
	})
}

// What is committed between the verifier's requests is in the listing, because that
// is made after the newest manifest was read. So no segment has to be asked for
// separately.
func TestVerifyAsksForNothingThatIsListed(t *testing.T) {
	inWorld(t, func(w *world) {
		o := w.library()
		for before := 1; before <= 4; before++ {
			requests, probes := 0, 0
			store := hookedGets{w.bucket.Open(), func() {
				if requests++; requests == before {
					commit(w, o, with(10+before, 100<<10))
				}
			}, func(p []byte) {
				if len(p) == 2 {
					probes++
				}
			}}
			task, err := newJob(t, store, checkpoint.Options{Requests: 1}).Task("orders/7")
			if err != nil {
				t.Fatal(err)
			}
			if r, err := task.Verify(w.Context(), structure); err != nil || len(r.Problems) > 0 || probes > 0 || requests < before {
				t.Errorf("a commit before request %d of %d: %d segments were asked for; %+v, %v", before, requests, probes, r, err)
			}
		}
	})
}

// hookedGets calls before before each read, and get with the buffer of each Get.
type hookedGets struct {
	backend.Store
	before func()
	get    func(p []byte)
}

func (s hookedGets) Get(ctx context.Context, key string, offset int64, p []byte) (int, error) {
	s.before()
	s.get(p)
	return s.Store.Get(ctx, key, offset, p)
}

func (s hookedGets) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	s.before()
	return s.Store.List(ctx, prefix, after)
}
