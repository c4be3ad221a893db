package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// commitUntil commits, with pauses, until that fails or n commits were made. It returns
// how long that took, and the error.
func (w *world) commitUntil(o *checkpoint.Owner, n int, pause time.Duration) (time.Duration, error) {
	start := time.Now()
	for i := range n {
		if _, err := o.Commit(w.Context(), at(i)); err != nil {
			return time.Since(start), err
		}
		time.Sleep(pause)
		synctest.Wait()
	}
	return time.Since(start), nil
}

// losses are what others may do to a task behind its owner's back.
var losses = map[string]struct {
	do   func(w *world)
	says string
}{
	"all objects are deleted": {func(w *world) {
		for _, o := range w.objects("") {
			w.remove(o.Key)
		}
	}, "are gone"},
	"the newest manifests are deleted":          {func(w *world) { w.lose(w.newestSeq() - 6) }, "are gone"},
	"the newest of all is deleted":              {func(w *world) { w.lose(w.newestSeq()) }, "is gone"},
	"another history has gone on from a backup": {func(w *world) { w.goOnFromABackup() }, "are gone"},
}

// goOnFromABackup brings the store back to what it was 7 manifests ago, and makes a
// checkpoint by another writer.
func (w *world) goOnFromABackup() {
	w.lose(w.newestSeq() - 6)
	task, _, _ := w.process()
	if _, err := task.Save(w.Context(), at(1000), checkpoint.SaveOptions{Fence: true}); err != nil {
		w.Fatal(err)
	}
}

// An owner finds out that others have removed manifests, soon, and says so.
func TestManifestsAreRemovedUnderAnOwner(t *testing.T) {
	for name, c := range losses {
		for _, pause := range []time.Duration{time.Second, 30 * time.Second, 5 * time.Minute, 20 * time.Minute} {
			t.Run(fmt.Sprint(name, " ", pause), func(t *testing.T) {
				inWorld(t, func(w *world) {
					o, _ := w.owner()
					if _, err := w.commitUntil(o, 30, pause); err != nil {
						t.Fatal(err)
					}
					c.do(w)
					took, err := w.commitUntil(o, 2000, pause)
					if !errors.Is(err, checkpoint.ErrLost) || !strings.Contains(err.Error(), c.says) {
						t.Fatalf("after %v: %v", took, err)
					}
					if limit := checkpoint.LookAfter + (checkpoint.LookCommits+1)*pause; took > limit {
						t.Errorf("it took %v, want at most %v", took, limit)
					}
					if _, err := o.Commit(w.Context(), at(1)); !errors.Is(err, checkpoint.ErrLost) {
						t.Errorf("the next commit: %v", err)
					}
				})
			})
		}
	}
}

// The manifest that the last look has seen is removed, and no other one.
func TestManifestOfTheLastLookIsRemoved(t *testing.T) {
	inWorld(t, func(w *world) {
		var seen uint64
		var o *checkpoint.Owner
		task := w.hookedTask(checkpoint.Options{}, func(verb, key string) {
			if verb == "list" && key == format.ManifestPrefix(dir) && o != nil {
				seen = w.newestSeq()
			}
		})
		o = claim(w, task)
		if _, err := w.commitUntil(o, 30, 30*time.Second); err != nil {
			t.Fatal(err)
		}
		if newest := w.newestSeq(); seen < 3 || seen+2 > newest {
			t.Fatalf("the last look was at manifest %d of %d", seen, newest)
		}
		w.remove(format.ManifestKey(dir, seen))
		if _, err := w.commitUntil(o, 100, 30*time.Second); !errors.Is(err, checkpoint.ErrLost) {
			t.Errorf("%v; want ErrLost", err)
		}
	})
}

// An owner looks rarely, and finds nothing wrong with what it deletes itself, what
// collectors delete, and what others amend.
func TestOwnerLooksRarely(t *testing.T) {
	for pause, most := range map[time.Duration]int{1100 * time.Millisecond: 5, 30 * time.Second: 120, 40 * time.Minute: 2400 + 270} {
		for _, keep := range []int{1, 10, checkpoint.KeepAll} {
			t.Run(fmt.Sprint(pause, " ", keep), func(t *testing.T) {
				inWorld(t, func(w *world) {
					count := make(map[string]int)
					job := newJob(w, distant{w.bucket.Open(), 0, new(sync.Mutex), count},
						checkpoint.Options{Retention: checkpoint.Retention{Last: keep}, Logger: slog.New(slog.DiscardHandler)})
					defer func() { _ = job.Close(w.Context()) }()
					o, err := claimIn(w.Context(), job)
					if err != nil {
						t.Fatal(err)
					}
					commit(w, o, at(0))
					synctest.Wait()
					clear(count)
					for n := range 12 {
						if _, err := w.commitUntil(o, 200, pause); err != nil {
							t.Fatal(err)
						}
						if n%3 == 0 {
							task, _, _ := w.process()
							w.beside(task, n)
						}
					}
					if n := count["list"]; n > most+24 { // each of four amendments takes the owner some
						t.Errorf("2400 commits took %d lists, want at most %d", n, most)
					}
				})
			})
		}
	}
}

// beside does what others may do beside an owner.
func (w *world) beside(task *checkpoint.Task, n int) {
	w.Helper()
	if _, err := task.AddSavepoint(w.Context(), fmt.Sprint("s", n), checkpoint.SavepointOptions{}); err != nil {
		w.Fatal(err)
	}
	if _, err := task.Prune(w.Context(), checkpoint.Retention{Last: 2}, checkpoint.PruneOptions{}); err != nil {
		w.Fatal(err)
	}
	if _, err := task.Collect(w.Context(), checkpoint.CollectOptions{}); err != nil {
		w.Fatal(err)
	}
}

// A hidingFirst leaves the first objects out of each listing.
type hidingFirst struct {
	backend.Store
	n *int
}

func (h hidingFirst) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	return func(yield func(backend.Object, error) bool) {
		skip := *h.n
		for o, err := range h.Store.List(ctx, prefix, after) {
			if skip--; skip < 0 && !yield(o, err) {
				return
			}
		}
	}
}

// A manifest that was removed from between others is found if it was made after the last look.
func TestManifestIsRemovedFromBetween(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		if _, err := w.commitUntil(o, 30, 30*time.Second); err != nil {
			t.Fatal(err)
		}
		w.remove(format.ManifestKey(dir, w.newestSeq()-2))
		if took, err := w.commitUntil(o, 2000, 30*time.Second); !errors.Is(err, checkpoint.ErrLost) || took > checkpoint.LookAfter {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// A manifest that the store has and does not list is not lost: the store cannot be used.
func TestOwnersManifestIsNotListed(t *testing.T) {
	inWorld(t, func(w *world) {
		hidden := 0
		job := newJob(w, hidingFirst{w.bucket.Open(), &hidden}, checkpoint.Options{Logger: slog.New(slog.DiscardHandler)})
		defer func() { _ = job.Close(w.Context()) }()
		o, err := claimIn(w.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.commitUntil(o, 30, time.Minute); err != nil {
			t.Fatal(err)
		}
		hidden = 3
		if _, err := w.commitUntil(o, 60, time.Minute); !errors.Is(err, backend.ErrUnsupported) || errors.Is(err, checkpoint.ErrLost) {
			t.Errorf("err = %v", err)
		}
	})
}

// Check finds out at once.
func TestCheckAfterARollback(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		if _, err := w.commitUntil(o, 10, time.Second); err != nil {
			t.Fatal(err)
		}
		w.lose(5)
		if err := o.Check(w.Context()); !errors.Is(err, checkpoint.ErrLost) || !strings.Contains(err.Error(), "removed") {
			t.Errorf("err = %v", err)
		}
		if _, err := o.Commit(w.Context(), at(11)); !errors.Is(err, checkpoint.ErrLost) {
			t.Errorf("the next commit: %v", err)
		}
	})
}
