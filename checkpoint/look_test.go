package checkpoint_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// A pausing store calls between after the second object of a listing of manifests, once, as
// if each page were that short.
type pausing struct {
	backend.Store
	between func()
}

func (s *pausing) List(ctx context.Context, prefix, after string) iter.Seq2[backend.Object, error] {
	if prefix != format.ManifestPrefix(dir) || after != "" {
		return s.Store.List(ctx, prefix, after)
	}
	return func(yield func(backend.Object, error) bool) {
		seen := 0
		for o, err := range s.Store.List(ctx, prefix, "") {
			if seen++; seen == 3 && s.between != nil {
				between := s.between
				s.between = nil
				between()
				break
			}
			if after = o.Key; !yield(o, err) {
				return
			}
		}
		if seen < 3 {
			return
		}
		for o, err := range s.Store.List(ctx, prefix, after) {
			if !yield(o, err) {
				return
			}
		}
	}
}

// An owner's look takes long, and what it has not listed yet is pruned and collected
// meanwhile, as usual. Nobody has removed anything.
func TestLookThatTakesLong(t *testing.T) {
	for name, c := range map[string]struct {
		keep  checkpoint.Retention
		pause time.Duration // between commits
	}{
		"young manifests":          {checkpoint.Retention{Last: 1}, 90 * time.Second},
		"checkpoints that it kept": {checkpoint.Retention{Last: checkpoint.KeepAll}, 25 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				store := &pausing{Store: w.bucket.Open()}
				job := newJob(w, store, checkpoint.Options{Retention: c.keep, Logger: slog.New(slog.DiscardHandler)})
				defer func() { _ = job.Close(w.Context()) }()
				o, err := claimIn(w.Context(), job)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.commitUntil(o, 5, c.pause); err != nil {
					t.Fatal(err)
				}
				store.between = func() {
					other := w.mustTask()
					mustDo(w, second(other.Prune(w.Context(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{})))
					time.Sleep(checkpoint.FenceWindow + time.Minute)
					mustDo(w,
						second(other.AddSavepoint(w.Context(), "x", checkpoint.SavepointOptions{})),
						second(other.Collect(w.Context(), checkpoint.CollectOptions{})))
				}
				if took, err := w.commitUntil(o, 60, c.pause); err != nil { // for longer than the look takes
					t.Errorf("after %v: %v", took, err)
				}
				if store.between != nil {
					t.Error("the owner has not looked")
				}
				w.wantReadable()
			})
		})
	}
}

// A look to which the store does not answer is made again, and ends nothing.
func TestLookThatFails(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.owner()
		pause := 2 * time.Minute
		if _, err := w.commitUntil(o, 5, pause); err != nil {
			t.Fatal(err)
		}
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "list", Err: backend.ErrPermission})
		if _, err := w.commitUntil(o, 10, pause); err != nil {
			t.Fatal(err)
		}
		if left := store.Unfired(); len(left) > 0 {
			t.Errorf("the owner has not looked: %v", left)
		}
		store.Heal()
		if _, err := w.commitUntil(o, 10, pause); err != nil {
			t.Fatal(err)
		}
		w.lose(w.newestSeq() - 6)
		if _, err := w.commitUntil(o, 20, pause); !errors.Is(err, checkpoint.ErrLost) || !strings.Contains(err.Error(), "are gone") {
			t.Errorf("err = %v", err)
		}
		synctest.Wait()
	})
}
