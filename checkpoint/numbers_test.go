package checkpoint_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// sealed returns a first claim of the task with any text as its epoch and the right
// checksum. A hostile writer could make it.
func sealed(t tester, epoch string) []byte {
	t.Helper()
	m := &format.Manifest{Kind: format.KindClaim, Task: "orders/7", Seq: 1, Epoch: 1, Writer: format.WriterID{1}}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	body, _, _ := bytes.Cut(data, []byte(`,"sum":`))
	body = bytes.Replace(body, []byte(`"epoch":1`), []byte(`"epoch":`+epoch), 1)
	return fmt.Appendf(body, ",\"sum\":\"%s\"}\n", format.Sum(body))
}

// Readers refuse an epoch that leaves no room for a later one.
func TestNumbersNearTheEndAreRefused(t *testing.T) {
	for _, epoch := range []string{"9223372036854775808", "18446744073709551615"} {
		inWorld(t, func(w *world) {
			w.write(format.ManifestKey(dir, 1), sealed(w, epoch))
			task, _, _ := w.process()
			for what, err := range map[string]error{
				"claim": second(task.Claim(w.Context(), checkpoint.ClaimOptions{})),
				"save":  second(task.Save(w.Context(), at(1), checkpoint.SaveOptions{})),
				"read":  second(task.Status(w.Context())),
			} {
				if !errors.Is(err, checkpoint.ErrCorrupt) {
					t.Errorf("%s of epoch %s: %v, want ErrCorrupt", what, epoch, err)
				}
			}
			w.wantObjects(manifests, 1)
		})
	}
}

// What could not be read is not written: after the last possible epoch nothing is
// sent, and the task can still be read.
func TestNothingIsWrittenThatCannotBeRead(t *testing.T) {
	inWorld(t, func(w *world) {
		w.write(format.ManifestKey(dir, 1), sealed(w, fmt.Sprint(uint64(math.MaxInt64))))
		task, _, store := w.process()
		for what, use := range map[string]func() error{
			"claim": func() error { return second(task.Claim(w.Context(), checkpoint.ClaimOptions{})) },
			"save":  func() error { return second(task.Save(w.Context(), at(1), checkpoint.SaveOptions{Fence: true})) },
		} {
			err := use()
			if err == nil || !strings.Contains(err.Error(), "9223372036854775807") {
				t.Errorf("%s after the last epoch: %v, want an error that names it", what, err)
			}
			if errors.Is(err, checkpoint.ErrUnknown) {
				t.Errorf("%s: %v; nothing was sent", what, err)
			}
		}
		if usage := store.Calls(); usage == 0 {
			t.Error("nothing was read")
		}
		w.wantObjects(manifests, 1)
		if s, err := task.Status(w.Context()); err != nil || s.Epoch != math.MaxInt64 {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
