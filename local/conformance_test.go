package local_test

import (
	"context"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/conformance"
	"github.com/holdfast-io/holdfast/internal/testreq"
	"github.com/holdfast-io/holdfast/local"
)

func TestConformance(t *testing.T) {
	testreq.Suite(t, "local")
	dir := t.TempDir()
	conformance.Run(t, func(_ context.Context, namespace string) (backend.Store, error) {
		return local.New(filepath.Join(dir, namespace))
	})
}

// The same suite by URL, and in a prefix of a store with other users.
func TestConformanceByURL(t *testing.T) {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(t.TempDir())}
	conformance.Run(t, func(ctx context.Context, namespace string) (backend.Store, error) {
		s, err := backend.Open(ctx, u.String())
		if err != nil {
			return nil, err
		}
		return backend.Prefix(s, namespace+"/"), nil
	})
}
