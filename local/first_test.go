package local

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
)

// One call finds that the directory does not exist, and another call makes it just
// afterwards. The first call must not think that it was replaced.
func TestFirstCallsAtOnce(t *testing.T) {
	base := t.TempDir()
	for n := range 300 {
		s, err := New(filepath.Join(base, string(rune('a'+n%26)), "store", string(rune('a'+n/26))))
		if err != nil {
			t.Fatal(err)
		}
		var group errgroup.Group
		group.Go(func() error {
			_, err := s.Put(t.Context(), "a/b", nil)
			return err
		})
		for range 3 {
			group.Go(func() error {
				for range 20 {
					for _, err := range s.List(t.Context(), "a/", "") {
						if err != nil {
							return err
						}
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Errorf("round %d: %v (ErrNoStore: %v)", n, err, errors.Is(err, backend.ErrNoStore))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
