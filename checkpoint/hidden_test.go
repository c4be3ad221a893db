package checkpoint_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A hidingStore lists nothing, like a proxy that answers every listing with an empty
// one.
type hidingStore struct{ backend.Store }

func (hidingStore) List(context.Context, string, string) iter.Seq2[backend.Object, error] {
	return func(func(backend.Object, error) bool) {}
}

// A store that has a manifest and does not list it is detected, and its task is not
// taken for a new one.
func TestStoreThatListsNothing(t *testing.T) {
	for name, use := range map[string]func(context.Context, *checkpoint.Task) error{
		"claim": func(ctx context.Context, t *checkpoint.Task) error {
			return second(t.Claim(ctx, checkpoint.ClaimOptions{}))
		},
		"save": func(ctx context.Context, t *checkpoint.Task) error {
			return second(t.Save(ctx, with(9, 100<<10), checkpoint.SaveOptions{}))
		},
	} {
		for _, commits := range []int{0, 3} {
			t.Run(name, func(t *testing.T) {
				inWorld(t, func(w *world) {
					if commits > 0 {
						o, _ := w.owner()
						for n := range commits {
							commit(w, o, at(n))
						}
					}
					job := newJob(t, hidingStore{w.bucket.Open()}, checkpoint.Options{})
					task, err := job.Task("orders/7")
					if err != nil {
						t.Fatal(err)
					}
					err = use(w.Context(), task)
					if !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "lists no manifest from that on: check the endpoint") {
						t.Errorf("after %d commits: %v, want ErrUnsupported", commits, err)
					}
					// If the first manifest was made, the error must not say that it
					// was not.
					if got := errors.Is(err, checkpoint.ErrUnknown); got != (commits == 0) {
						t.Errorf("after %d commits: unknown is %v: %v", commits, got, err)
					}
				})
			})
		}
	}
}
