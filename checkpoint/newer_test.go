package checkpoint_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// putNewer stores a manifest that only a newer version of the library can read.
func (w *world) putNewer(seq uint64) {
	w.Helper()
	body, err := json.Marshal(map[string]any{"holdfast": format.Version + 1, "surprise": true})
	if err != nil {
		w.Fatal(err)
	}
	body = body[:len(body)-1]
	data := fmt.Appendf(body, ",\"sum\":\"%s\"}\n", format.Sum(body))
	if _, err := w.bucket.Open().Create(w.Context(), format.ManifestKey(dir, seq), data); err != nil {
		w.Fatal(err)
	}
}

// An owner after whom a newer version of the library has written is fenced, and says why:
// it can read nothing that it could continue from.
func TestNewerVersionFences(t *testing.T) {
	calls := map[string]func(*world, *checkpoint.Owner) error{
		"commit":  func(w *world, o *checkpoint.Owner) error { return second(o.Commit(w.Context(), at(2))) },
		"check":   func(w *world, o *checkpoint.Owner) error { return o.Check(w.Context()) },
		"release": func(w *world, o *checkpoint.Owner) error { return o.Release(w.Context()) },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				o, _ := w.owner()
				commit(w, o, at(1)) // 2
				w.putNewer(3)
				for range 2 {
					err := call(w, o)
					if !errors.Is(err, checkpoint.ErrFenced) || !errors.Is(err, checkpoint.ErrVersion) {
						t.Errorf("%v", err)
					}
					if errors.Is(err, checkpoint.ErrUnknown) || errors.Is(err, checkpoint.ErrUnsettled) {
						t.Errorf("it is in doubt: %v", err)
					}
				}
			})
		})
	}
}

// So is one whose commit is in doubt at that time.
func TestNewerVersionFencesAnOwnerInDoubt(t *testing.T) {
	inWorld(t, func(w *world) {
		o, store := w.owner()
		commit(w, o, at(1)) // 2
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", Err: backend.ErrThrottled})
		if _, err := o.Commit(w.Context(), at(2)); err == nil {
			t.Fatal("the commit went through")
		}
		store.Heal()
		w.putNewer(3)
		if err := o.Check(w.Context()); !errors.Is(err, checkpoint.ErrFenced) || !errors.Is(err, checkpoint.ErrVersion) {
			t.Errorf("%v", err)
		}
	})
}
