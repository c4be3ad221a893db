package checkpoint_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

func TestClosedOwner(t *testing.T) {
	o := claim(t, newTask(t))
	if err := o.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	_, err := o.Commit(t.Context(), at(1))
	if !errors.Is(err, fs.ErrClosed) || err.Error() != "the owner is closed" {
		t.Errorf("commit: %v, want fs.ErrClosed", err)
	}
	if err := o.Release(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("release: %v, want fs.ErrClosed", err)
	}
}

// The error of a manifest in doubt names the kind of manifest.
func TestUnknownNamesTheManifest(t *testing.T) {
	silent := faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create"}
	inWorld(t, func(w *world) {
		steps := map[string]func() error{
			`claim manifest 1 of task "orders/7": `: func() error {
				task, _, _ := w.process(silent)
				_, err := task.Claim(w.Context(), checkpoint.ClaimOptions{})
				return err
			},
			`commit manifest 1 of task "orders/7": `: func() error {
				task, _, _ := w.process(silent)
				_, err := task.Save(w.Context(), at(1), checkpoint.SaveOptions{})
				return err
			},
		}
		for want, step := range steps {
			if err := step(); !errors.Is(err, checkpoint.ErrUnknown) || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%v, want ErrUnknown that begins with %s", err, want)
			}
		}
		o, _ := w.owner(silent)
		want := `release manifest 2 of task "orders/7": `
		if err := o.Release(w.Context()); !errors.Is(err, checkpoint.ErrUnknown) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want ErrUnknown that begins with %s", err, want)
		}
	})
}
