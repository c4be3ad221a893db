package backend_test

import (
	"encoding/json"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
)

func TestMeterCounts(t *testing.T) {
	var meter backend.Meter
	inner := newHooked(func(c call) error {
		if c.op == "list" && c.key == "c" || c.op == "delete" {
			return errFinal
		}
		return nil
	})
	first, second := meter.Wrap(inner), meter.Wrap(inner)
	ctx := t.Context()

	_, _ = first.Create(ctx, "a", make([]byte, 10))
	_, _ = second.Create(ctx, "a", make([]byte, 5)) // the key is taken
	_, _ = first.Put(ctx, "b", make([]byte, 100))
	_, _ = second.Put(ctx, "c", make([]byte, 100))
	_, _ = first.Get(ctx, "a", 4, make([]byte, 100)) // reads 6 bytes
	_, _ = second.Get(ctx, "missing", 0, make([]byte, 100))
	_, _ = listed(ctx, first) // fails after two keys
	for _, err := range second.List(ctx, "", "") {
		if err == nil {
			break
		}
	}
	first.List(ctx, "", "") // never ranged over: not counted
	_ = second.Delete(ctx, "a", "b", "c")

	want := backend.Stats{
		Create: backend.Count{Calls: 2, Failed: 1, Keys: 2, Bytes: 15},
		Put:    backend.Count{Calls: 2, Keys: 2, Bytes: 200},
		Get:    backend.Count{Calls: 2, Failed: 1, Keys: 2, Bytes: 6},
		List:   backend.Count{Calls: 2, Failed: 1, Keys: 3},
		Delete: backend.Count{Calls: 1, Failed: 1, Keys: 3},
	}
	if got := meter.Stats(); got != want {
		t.Errorf("stats\n%+v, want\n%+v", got, want)
	}
}

func TestUsageJSON(t *testing.T) {
	got, err := json.Marshal(backend.Count{Calls: 1, Failed: 2, Keys: 3, Bytes: 4})
	if want := `{"calls":1,"failed":2,"keys":3,"bytes":4}`; err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}
