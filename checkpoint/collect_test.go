package checkpoint_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// collect runs a collection in a process of its own.
func (w *world) collect(opts checkpoint.CollectOptions, faults ...faultstore.Fault) checkpoint.CollectResult {
	w.Helper()
	task, _, _ := w.process(faults...)
	done, err := task.Collect(w.Context(), opts)
	if err != nil {
		w.Fatal(err)
	}
	return done
}

// segment writes a segment as a writer may have sent it.
func (w *world) segment(epoch uint64, writer byte, n uint32) string {
	w.Helper()
	key := format.SegmentKey(dir, format.SegmentID{Epoch: epoch, Writer: format.WriterID{writer}, N: n})
	if _, err := w.bucket.Open().Put(w.Context(), key, make([]byte, 100)); err != nil {
		w.Fatal(err)
	}
	return key
}

func (w *world) exists(key string) bool {
	w.Helper()
	_, err := w.bucket.Open().Get(w.Context(), key, 0, make([]byte, 1))
	if err != nil && !errors.Is(err, backend.ErrNotExist) {
		w.Fatal(err)
	}
	return err == nil
}

// Epoch and writer decide what is garbage, and not the clock.
func TestCollectSegments(t *testing.T) {
	inWorld(t, func(w *world) {
		first, _ := w.owner()
		commit(w, first, with(1, 100<<10))
		synctest.Wait()
		o, _ := w.owner() // epoch 2
		c := commit(w, o, with(2, 100<<10))
		synctest.Wait()
		own := w.manifest(c.Seq).Writer
		before := len(w.objects(segments))

		garbage := []string{w.segment(1, 0xee, 0), w.segment(2, 0xee, 0), w.segment(2, 0xee, 7)}
		stays := []string{w.segment(3, 0xee, 0), w.segment(9, 0xee, 0)} // of saves in progress
		inFlight := format.SegmentKey(dir, format.SegmentID{Epoch: 2, Writer: own, N: 99})
		stays = append(stays, inFlight)
		if _, err := w.bucket.Open().Put(w.Context(), inFlight, []byte("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1000 * time.Hour)

		want := checkpoint.CollectResult{Segments: 3, Bytes: 300}
		if got := w.collect(checkpoint.CollectOptions{DryRun: true}); got.Segments != want.Segments || got.Bytes != want.Bytes {
			t.Errorf("a dry run finds %+v, want %+v", got, want)
		}
		w.wantObjects(segments, before+6)
		if got := w.collect(checkpoint.CollectOptions{}); got != want {
			t.Errorf("collected %+v, want %+v", got, want)
		}
		for _, key := range garbage {
			if w.exists(key) {
				t.Errorf("%s is still there", key)
			}
		}
		for _, key := range stays {
			if !w.exists(key) {
				t.Errorf("%s is gone", key)
			}
		}
		w.wantHistory("2 1")
		w.wantReadable()
		if got := w.collect(checkpoint.CollectOptions{}); got != (checkpoint.CollectResult{}) {
			t.Errorf("collected %+v once more", got)
		}

		// The owner was not fenced. After it has released the task, segments of its
		// epoch are garbage.
		commit(w, o, with(3, 100<<10))
		if err := o.Release(w.Context()); err != nil {
			t.Fatal(err)
		}
		w.collect(checkpoint.CollectOptions{})
		if w.exists(inFlight) {
			t.Error("a segment of a writer that released the task is still there")
		}
		w.wantReadable()
	})
}

func TestCollectManifests(t *testing.T) {
	inWorld(t, func(w *world) {
		task, _, _ := w.open(lastOne)
		for n := range 30 {
			if _, err := task.Save(w.Context(), at(n), checkpoint.SaveOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.collect(checkpoint.CollectOptions{}); got != (checkpoint.CollectResult{}) {
			t.Errorf("collected %+v within the fence window", got)
		}
		time.Sleep(checkpoint.FenceWindow)
		if got := w.collect(checkpoint.CollectOptions{}); got != (checkpoint.CollectResult{}) {
			t.Errorf("collected %+v, but the newest is as old", got)
		}
		for n, want := range []int{0, 30} {
			if _, err := task.Save(w.Context(), at(30+n), checkpoint.SaveOptions{}); err != nil {
				t.Fatal(err)
			}
			if got := w.collect(checkpoint.CollectOptions{}); got.Manifests != want {
				t.Errorf("collected %+v, want %d manifests a window and %d s before the newest", got, want, n)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(2 * checkpoint.FenceWindow) // the test does not depend on whose clock this is
		if got := w.collect(checkpoint.CollectOptions{}); got != (checkpoint.CollectResult{}) {
			t.Errorf("collected %+v, but the newest is as old", got)
		}
		w.wantObjects(manifests, 2)
		w.wantHistory("31")
	})
}

// What a killed process left is deleted after the first commit of the next one.
func TestOwnerCollectsWhatOthersLeft(t *testing.T) {
	inWorld(t, func(w *world) {
		first, _ := w.owner()
		commit(w, first, with(1, 20<<10))
		synctest.Wait()
		key := w.segment(1, 0xee, 3)
		o, store := w.owner(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "delete", On: 1, Err: backend.ErrPermission})
		commit(w, o, at(2))
		synctest.Wait()
		if !w.exists(key) || o.CleanupFailures() != 1 {
			t.Errorf("%d clean-ups failed", o.CleanupFailures())
		}
		commit(w, o, at(3))
		synctest.Wait()
		if w.exists(key) || o.CleanupFailures() != 1 {
			t.Errorf("it is still there; %d clean-ups failed", o.CleanupFailures())
		}
		before := store.Calls()
		commit(w, o, at(4))
		synctest.Wait()
		if n := store.Calls() - before; n != 1 {
			t.Errorf("a later commit took %d requests", n)
		}
	})
}

// A retained checkpoint that cannot be read may need any segment, so nothing is
// deleted.
func TestCollectBesideDamage(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		c := commit(w, o, with(1, 20<<10))
		commit(w, o, with(2, 20<<10))
		synctest.Wait()
		key := w.segment(1, 0xee, 0)
		if _, err := w.bucket.Open().Put(w.Context(), format.ManifestKey(dir, c.Seq), []byte("rubbish")); err != nil {
			t.Fatal(err)
		}
		task, _, _ := w.process()
		if got, err := task.Collect(w.Context(), checkpoint.CollectOptions{}); !errors.Is(err, checkpoint.ErrCorrupt) || got.Segments != 0 {
			t.Errorf("%+v, %v; want ErrCorrupt", got, err)
		}
		if !w.exists(key) {
			t.Error("a segment was deleted")
		}
	})
}

// A collector may sleep between any two requests while the owner goes on.
func TestCollectorThatSleeps(t *testing.T) {
	for sleepAt := range 8 {
		inWorld(t, func(w *world) {
			opts := checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: 2}}
			o, _ := w.ownerWith(opts)
			for n := range 4 {
				commit(w, o, with(n, 100<<10))
			}
			synctest.Wait()
			w.segment(1, 0xee, 0)
			calls := 0
			task := w.hookedTask(checkpoint.Options{}, func(string, string) {
				if calls++; calls != sleepAt+1 {
					return
				}
				for n := range 3 {
					commit(w, o, with(10+n, 100<<10))
				}
				heir, _ := w.ownerWith(opts)
				for n := range 3 {
					time.Sleep(time.Hour)
					commit(w, heir, with(20+n, 100<<10))
				}
			})
			if _, err := task.Collect(w.Context(), checkpoint.CollectOptions{}); err != nil {
				t.Errorf("sleeping before request %d: %v", sleepAt+1, err)
			}
			synctest.Wait()
			w.wantReadable()
		})
	}
}

func TestCollectNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		key := w.segment(1, 0xee, 0) // of the task's first save, which is in progress
		if got := w.collect(checkpoint.CollectOptions{}); got != (checkpoint.CollectResult{}) || !w.exists(key) {
			t.Errorf("collected %+v of a task that has no manifest", got)
		}
	})
}

// Between a collector's two requests for the newest manifest, this may be retired and
// deleted, and a process that slept may make a late manifest of the same number. That
// manifest says nothing about which segments are needed.
func TestCollectorReadsAManifestThatCameLate(t *testing.T) {
	inWorld(t, func(w *world) {
		owner, _ := w.ownerWith(lastOne) // 1
		commit(w, owner, at(2))
		synctest.Wait()

		// Its claim will be number 3, and is sent four hours later.
		sleeper, _, _ := w.open(lastOne, faultstore.Fault{Kind: faultstore.Delay, Verb: "create", On: 1, For: 4 * time.Hour})
		claimed := make(chan *checkpoint.Owner)
		go func() { claimed <- claim(w, sleeper) }()
		synctest.Wait()
		commit(w, owner, at(3))

		collector, _, _ := w.open(lastOne, faultstore.Fault{Kind: faultstore.Delay, Verb: "get", On: 1, For: 8 * time.Hour})
		done := make(chan error)
		go func() {
			_, err := collector.Collect(w.Context(), checkpoint.CollectOptions{})
			done <- err
		}()
		time.Sleep(2 * checkpoint.FenceWindow)
		commit(w, owner, at(4))
		synctest.Wait()
		if w.exists(format.ManifestKey(dir, 3)) {
			t.Fatal("manifest 3 has not been deleted")
		}

		heir := <-claimed
		if m := w.manifest(3); m.Kind != format.KindClaim || m.Epoch != heir.Epoch() {
			t.Fatalf("number 3 is %+v", m)
		}
		commit(w, heir, with(5, 20<<10))
		if err := <-done; err != nil {
			t.Errorf("collection: %v", err)
		}
		w.wantHistory("5")
		w.wantReadable()
	})
}

// The late manifest may be deleted before the manifests are listed, and the
// checkpoints that it retains may still be retained.
func TestCollectorReadsALateManifestThatIsDeleted(t *testing.T) {
	inWorld(t, func(w *world) {
		owner, _ := w.ownerWith(lastOne) // 1
		named := with(2, 20<<10)
		named.Savepoint = "first"
		first := commit(w, owner, named)

		late := *w.manifest(2) // a process that claims after number 2 is about to send this
		late.Kind, late.Seq, late.Epoch, late.Writer = format.KindClaim, 3, 2, format.WriterID{0xee}
		late.Checkpoint.Time = first.Time
		commit(w, owner, with(3, 20<<10))

		calls := 0
		task := w.hookedTask(lastOne, func(string, string) {
			switch calls++; calls {
			case 2: // it has listed number 3, and will read it
				time.Sleep(2 * checkpoint.FenceWindow)
				commit(w, owner, with(4, 20<<10))
				synctest.Wait()
				w.put(&late)
			case 3:
				time.Sleep(2 * checkpoint.FenceWindow)
				commit(w, owner, with(5, 20<<10))
				w.collect(checkpoint.CollectOptions{})
				if w.exists(format.ManifestKey(dir, 3)) {
					t.Fatal("the late manifest has not been deleted")
				}
			}
		})
		if _, err := task.Collect(w.Context(), checkpoint.CollectOptions{}); err != nil {
			t.Errorf("collection: %v", err)
		}
		synctest.Wait()
		w.wantHistory("5 2")
		w.wantReadable()
	})
}

// The same may happen to a retained manifest. If the task was rolled back to it
// meanwhile, its segments are needed again.
func TestCollectorReadsARetainedManifestThatCameLate(t *testing.T) {
	inWorld(t, func(w *world) {
		two := checkpoint.Options{Retention: checkpoint.Retention{Last: 2}}
		first, _ := w.ownerWith(two) // 1
		sleeper, _, _ := w.open(two, faultstore.Fault{Kind: faultstore.Delay, Verb: "create", On: 1, For: 4 * time.Hour})
		saved := make(chan error)
		go func() { saved <- second(sleeper.Save(w.Context(), at(99), checkpoint.SaveOptions{Fence: true})) }() // as number 2
		synctest.Wait()
		state := with(2, 20<<10)
		commit(w, first, state) // 2
		synctest.Wait()
		time.Sleep(2 * checkpoint.FenceWindow)
		owner, _ := w.ownerWith(two) // 3
		commit(w, owner, at(4))
		synctest.Wait()

		collector, _, _ := w.open(two, faultstore.Fault{Kind: faultstore.Delay, Verb: "get", Key: format.ManifestKey(dir, 2), On: 1, For: 8 * time.Hour})
		done := make(chan error)
		go func() { done <- second(collector.Collect(w.Context(), checkpoint.CollectOptions{})) }()
		synctest.Wait()

		task, _, _ := w.open(two)
		back, err := task.Claim(w.Context(), checkpoint.ClaimOptions{At: checkpoint.Seq(2)})
		if err != nil {
			t.Fatal(err)
		}
		w.Cleanup(func() { _ = back.Close(context.Background()) })
		for range 3 { // these have the state of number 2, and retire it
			state.State = with(2, 20<<10).State
			commit(w, back, state)
			synctest.Wait()
		}
		if w.exists(format.ManifestKey(dir, 2)) {
			t.Fatal("manifest 2 has not been deleted")
		}
		if err := <-saved; !errors.Is(err, checkpoint.ErrConflict) {
			t.Errorf("save: %v", err)
		}
		if m := w.manifest(2); m.Epoch != 2 {
			t.Fatalf("number 2 is %+v", m)
		}
		if err := <-done; err != nil {
			t.Errorf("collection: %v", err)
		}
		w.wantReadable()
	})
}

// In a copy of a job in another store, objects are younger than their manifests say.
func TestCollectInACopy(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		commit(w, o, with(1, 20<<10))
		commit(w, o, with(2, 20<<10))
		synctest.Wait() // the owner collects what others have left
		w.segment(1, 0xee, 0)
		heir, _ := w.owner()
		time.Sleep(2 * checkpoint.FenceWindow)
		copied := mem.NewBucket(time.Now)
		for _, kind := range []string{manifests, segments} {
			for _, obj := range w.objects(kind) {
				if _, err := copied.Open().Put(w.Context(), obj.Key, w.read(obj.Key)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := heir.Close(context.Background()); err != nil {
			t.Error(err)
		}
		w.bucket = copied
		if got := w.collect(checkpoint.CollectOptions{}); got.Segments != 1 {
			t.Errorf("collected %+v, want one segment", got)
		}
		w.wantHistory("2 1")
		w.wantReadable()
	})
}
