package checkpoint_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// A save in progress has uploaded its segments, but not its manifest.
func TestCollectionBesideASave(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 20<<10))
		synctest.Wait()
		task, _, _ := w.process(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", On: 1, For: 3 * time.Hour})
		saved := make(chan error)
		go func() { saved <- second(task.Save(w.Context(), with(2, 20<<10), checkpoint.SaveOptions{Fence: true})) }()
		time.Sleep(time.Hour)
		w.wantObjects(segments, 2)
		if got := w.collect(checkpoint.CollectOptions{}); got.Segments != 0 {
			t.Errorf("collected %+v", got)
		}
		if err := <-saved; err != nil {
			t.Error(err)
		}
		w.wantHistory("2 1")
		w.wantReadable()
	})
}

// Between a collector's two requests for the newest manifest, this may be deleted,
// and a process that slept may make a late manifest of the same number. This is
// noticed even if all that the late one retains is still retained, and if it is gone
// again when the collector, which sleeps once more, looks for it.
func TestCollectorReadsALateManifestThatRetainsWhatIsKept(t *testing.T) {
	for _, c := range []struct {
		name     string
		retained bool // before it, there is a manifest that it retains
		gone     bool
	}{
		{"nothing", false, false},
		{"nothing, and is gone", false, true},
		{"one", true, false},
		{"one, and is gone", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				named := func(n int) checkpoint.Snapshot {
					s := with(n, 20<<10)
					s.Savepoint = string(rune('a' + n)) // so that it is kept
					return s
				}
				var owner *checkpoint.Owner
				late := uint64(1)
				if c.retained {
					owner, _ = w.ownerWith(lastOne) // 1
					commit(w, owner, named(0))      // 2
					late = 3
				}
				synctest.Wait()
				sleeper, _, _ := w.open(lastOne, faultstore.Fault{Kind: faultstore.Delay, Verb: "create", On: 1, For: 4 * time.Hour})
				claimed := make(chan *checkpoint.Owner)
				go func() { claimed <- claim(w, sleeper) }()
				synctest.Wait()
				if c.retained {
					commit(w, owner, at(1)) // 3
				} else {
					owner, _ = w.ownerWith(lastOne) // 1
				}
				synctest.Wait()

				faults := []faultstore.Fault{{Kind: faultstore.Delay, Verb: "get", On: 1, For: 8 * time.Hour}}
				if c.gone {
					faults = append(faults, faultstore.Fault{Kind: faultstore.Delay, Verb: "list", On: 2, For: 8 * time.Hour})
				}
				collector, _, _ := w.open(lastOne, faults...)
				done := make(chan error)
				go func() { done <- second(collector.Collect(w.Context(), checkpoint.CollectOptions{})) }()
				synctest.Wait()
				if got := w.newestSeq(); got != late {
					t.Fatalf("the newest is number %d, want %d", got, late)
				}

				commit(w, owner, named(2))
				time.Sleep(2 * checkpoint.FenceWindow)
				commit(w, owner, at(3))
				synctest.Wait()
				if w.exists(format.ManifestKey(dir, late)) {
					t.Fatalf("manifest %d has not been deleted", late)
				}
				heir := <-claimed
				if !w.exists(format.ManifestKey(dir, late)) {
					t.Fatalf("manifest %d has not come late", late)
				}
				commit(w, heir, named(4))
				if c.gone {
					time.Sleep(8 * time.Hour)
					commit(w, heir, at(5))
					synctest.Wait()
					w.collect(checkpoint.CollectOptions{})
					if w.exists(format.ManifestKey(dir, late)) {
						t.Fatalf("manifest %d has not been collected", late)
					}
				}
				if err := <-done; err != nil {
					t.Errorf("collection: %v", err)
				}
				w.wantReadable()
			})
		})
	}
}

// A collector that reads a late manifest, which is deleted before it lists the manifests,
// deletes nothing: what a save has stored, and a later savepoint shares, is of an earlier
// epoch, and named by nothing that the collector has read.
func TestCollectorReadsALateManifestInATaskOfSaves(t *testing.T) {
	inWorld(t, func(w *world) {
		slow := func(verb string, on int, d time.Duration) faultstore.Fault {
			return faultstore.Fault{Kind: faultstore.Delay, Verb: verb, On: on, For: d}
		}
		sleeper, _, _ := w.open(lastOne, slow("create", 1, 4*time.Hour))
		claimed := make(chan *checkpoint.Owner)
		go func() { claimed <- claim(w, sleeper) }()
		synctest.Wait()
		task, _, _ := w.open(lastOne)
		save := func(s checkpoint.Snapshot) {
			w.Helper()
			mustDo(w, second(task.Save(w.Context(), s, checkpoint.SaveOptions{})))
		}
		save(with(5, 20<<10)) // 1
		collector, _, _ := w.open(lastOne, slow("get", 1, 8*time.Hour), slow("list", 2, 8*time.Hour))
		done := make(chan error)
		go func() { done <- second(collector.Collect(w.Context(), checkpoint.CollectOptions{})) }()
		synctest.Wait()

		named := with(5, 20<<10)
		named.Savepoint = "x"
		save(named) // 2
		time.Sleep(2 * checkpoint.FenceWindow)
		save(at(3)) // 3
		w.collect(checkpoint.CollectOptions{})
		if w.exists(format.ManifestKey(dir, 1)) {
			t.Fatal("manifest 1 has not been deleted")
		}
		heir := <-claimed
		if !w.exists(format.ManifestKey(dir, 1)) {
			t.Fatal("manifest 1 has not come late")
		}
		time.Sleep(8 * time.Hour)
		commit(w, heir, at(5))
		synctest.Wait()
		w.collect(checkpoint.CollectOptions{})
		if w.exists(format.ManifestKey(dir, 1)) {
			t.Fatal("manifest 1 has not been collected")
		}
		if err := <-done; err != nil {
			t.Errorf("collection: %v", err)
		}
		w.wantReadable()
	})
}

// A copy may take long: the objects that are copied first are older than the newest
// manifest by more than the fence window, and younger than they say.
func TestCollectInACopyThatTookLong(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 20<<10))
		commit(w, o, with(2, 20<<10))
		synctest.Wait()
		time.Sleep(2 * checkpoint.FenceWindow)
		copied := mem.NewBucket(time.Now)
		list := append(w.objects(manifests), w.objects(segments)...)
		for _, obj := range slices.Backward(list) {
			if _, err := copied.Open().Put(w.Context(), obj.Key, w.read(obj.Key)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * checkpoint.FenceWindow)
		}
		w.bucket = copied
		w.collect(checkpoint.CollectOptions{})
		w.wantHistory("2 1")
		w.wantReadable()
	})
}

// Manifests that are a little younger than the fence window are kept.
func TestCollectorKeepsTheWindow(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, _ := w.open(lastOne)
		save := func(n int) {
			if _, err := task.Save(w.Context(), at(n), checkpoint.SaveOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		save(1)
		time.Sleep(checkpoint.FenceWindow)
		save(2)
		if got := w.collect(checkpoint.CollectOptions{}); got != (checkpoint.CollectResult{}) {
			t.Errorf("collected %+v at the fence window's end", got)
		}
		time.Sleep(time.Second)
		save(3)
		if got := w.collect(checkpoint.CollectOptions{}); got.Manifests != 1 {
			t.Errorf("collected %+v after the fence window, want one manifest", got)
		}
	})
}

// A retained checkpoint that cannot be read may need what a removed one needed.
func TestCleanUpBesideADamagedSavepoint(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(lastOne)
		s := with(1, 20<<10)
		s.Savepoint = "good"
		commit(w, o, s)               // 2
		commit(w, o, with(1, 20<<10)) // 3, with the same segment
		synctest.Wait()
		w.wantObjects(segments, 1)
		shared := w.objects(segments)[0].Key
		w.write(format.ManifestKey(dir, 2), []byte("rubbish"))
		heir, _ := w.ownerWith(lastOne)
		for n := range 2 {
			commit(w, heir, with(n+2, 20<<10)) // drops number 3
			synctest.Wait()
		}
		if !w.exists(shared) {
			t.Error("a segment of the damaged savepoint was deleted")
		}
		w.wantObjects(segments, 2)
	})
}

// A late manifest under the number of a retained one is not taken for the retained
// one.
func TestRetainedManifestThatCameLate(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 20<<10)) // 2
		commit(w, o, with(2, 20<<10))
		synctest.Wait()
		claim := *w.manifest(1)
		claim.Seq, claim.Token = 2, format.Token{1}
		w.remove(format.ManifestKey(dir, 2))
		w.put(&claim)
		task, _, _ := w.process()
		if c, err := task.Get(w.Context(), checkpoint.Seq(2)); !errors.Is(err, checkpoint.ErrCorrupt) {
			t.Errorf("%+v, %v; want ErrCorrupt", c, err)
		}
	})
}

// An owner that sleeps during its clean-up may find another manifest under the number
// of one that it kept. If the task was rolled back to the kept one meanwhile, its
// segments are needed again.
func TestCleanUpReadsAManifestThatCameLate(t *testing.T) {
	inWorld(t, func(w *world) {
		two := checkpoint.Options{Retention: checkpoint.Retention{Last: 2}}
		state := func() checkpoint.Snapshot { return with(1, 20<<10) }
		first, _ := w.ownerWith(two) // 1
		commit(w, first, state())    // 2
		sleeper, _, _ := w.open(two, faultstore.Fault{Kind: faultstore.Delay, Verb: "create", On: 1, For: 6 * time.Hour})
		saved := make(chan error)
		go func() { saved <- second(sleeper.Save(w.Context(), at(99), checkpoint.SaveOptions{Fence: true})) }() // as number 3
		synctest.Wait()
		commit(w, first, state()) // 3, with the same segment
		time.Sleep(2 * checkpoint.FenceWindow)

		owner, _ := w.ownerWith(two, faultstore.Fault{Kind: faultstore.Delay, Verb: "get", Key: format.ManifestKey(dir, 3), On: 1, For: 12 * time.Hour}) // 4
		commit(w, owner, with(5, 20<<10))                                                                                                                // drops number 2
		synctest.Wait()
		task, _, _ := w.open(two)
		back, err := task.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(3)})
		if err != nil {
			t.Fatal(err)
		}
		w.Cleanup(func() { _ = back.Close(context.Background()) })
		for range 3 { // with the same segment; they retire number 3
			commit(w, back, state())
			time.Sleep(checkpoint.FenceWindow + time.Minute)
		}
		commit(w, back, state())
		synctest.Wait()
		if w.exists(format.ManifestKey(dir, 3)) {
			t.Fatal("manifest 3 has not been deleted")
		}
		if err := <-saved; !errors.Is(err, checkpoint.ErrConflict) {
			t.Errorf("save: %v", err)
		}
		if m := w.manifest(3); m.Kind != format.KindCommit || !m.Released {
			t.Fatalf("number 3 is %+v", m)
		}
		time.Sleep(12 * time.Hour)
		if err := owner.Close(context.Background()); err != nil {
			t.Error(err)
		}
		w.wantReadable()
	})
}

// files returns a state of files that hardly compress, each in segments of its own.
func files(names ...string) checkpoint.Snapshot {
	fsys := make(fstest.MapFS)
	for _, name := range names {
		data := make([]byte, 100<<10)
		_, _ = rand.NewChaCha8([32]byte{name[0]}).Read(data)
		fsys[name] = &fstest.MapFile{Data: data, Mode: 0o600}
	}
	return checkpoint.Snapshot{State: checkpoint.FS(fsys), Offsets: map[string]string{"in": strings.Join(names, "")}}
}

// The same, and then the next clean-up of that owner, which knows no better: what was read of
// the late manifest must be forgotten.
func TestCleanUpForgetsAManifestThatCameLate(t *testing.T) {
	inWorld(t, func(w *world) {
		two := checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: 2}}
		first, _ := w.ownerWith(two)      // 1
		commit(w, first, files("a", "b")) // 2
		sleeper, _, _ := w.open(two, faultstore.Fault{Kind: faultstore.Delay, Verb: "create", On: 1, For: 6 * time.Hour})
		saved := make(chan error)
		go func() { saved <- second(sleeper.Save(w.Context(), at(99), checkpoint.SaveOptions{Fence: true})) }() // as number 3
		synctest.Wait()
		named := files("a", "b")
		named.Savepoint = "x"
		commit(w, first, named) // 3, with the same segments
		time.Sleep(2 * checkpoint.FenceWindow)

		owner, _ := w.ownerWith(two, faultstore.Fault{Kind: faultstore.Delay, Verb: "get", Key: format.ManifestKey(dir, 3), On: 1, For: 12 * time.Hour}) // 4
		commit(w, owner, files("a"))                                                                                                                     // 5 drops number 2
		commit(w, owner, files("c"))
		commit(w, owner, files("d")) // 7 drops number 5
		synctest.Wait()
		task, _, _ := w.open(two)
		back, err := task.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(3)})
		if err != nil {
			t.Fatal(err)
		}
		w.Cleanup(func() { _ = back.Close(context.Background()) })
		mustDo(t, second(task.RemoveSavepoint(w.Context(), "x")))
		for range 3 { // with the same segments; they retire number 3
			commit(w, back, files("a", "b"))
			time.Sleep(checkpoint.FenceWindow + time.Minute)
		}
		commit(w, back, files("a", "b"))
		synctest.Wait()
		if w.exists(format.ManifestKey(dir, 3)) {
			t.Fatal("manifest 3 has not been deleted")
		}
		if err := <-saved; !errors.Is(err, checkpoint.ErrConflict) {
			t.Errorf("save: %v", err)
		}
		if m := w.manifest(3); m.Kind != format.KindCommit || !m.Released {
			t.Fatalf("number 3 is %+v", m)
		}
		time.Sleep(12 * time.Hour)
		if err := owner.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if r, _ := w.verify(allData); len(r.Problems) > 0 || r.Intact != 2 {
			t.Errorf("%d intact, %v", r.Intact, r.Problems)
		}
	})
}
