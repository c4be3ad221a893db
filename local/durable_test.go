package local

import (
	"errors"
	"slices"
	"testing"
)

// If the fsync of a new directory's parent fails, the next write repeats it.
func TestDirectoryWhoseFsyncFailed(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := record(s)
	broken := errors.New("broken")
	r.intervene = func(_ int, op, name string, do func() error) error {
		if op == "syncdir" && name == "a" {
			return broken
		}
		return do()
	}
	if _, err := s.Create(t.Context(), "a/b/k", []byte("data")); !errors.Is(err, broken) {
		t.Fatalf("Create = %v, want the step's error", err)
	}
	r.steps, r.intervene = nil, nil
	mustCreate(t, s, "a/b/k", "data")
	if !slices.Contains(r.steps, "syncdir a") {
		t.Errorf("the next Create took these steps: %q", r.steps)
	}
}
