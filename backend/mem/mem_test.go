package mem_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/conformance"
	"github.com/holdfast-io/holdfast/internal/testreq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	testreq.Suite(t, "mem")
	var buckets sync.Map // by namespace
	conformance.Run(t, func(_ context.Context, namespace string) (backend.Store, error) {
		b, _ := buckets.LoadOrStore(namespace, mem.NewBucket(time.Now))
		return b.(*mem.Bucket).Open(), nil
	})
}

func TestConformanceByURL(t *testing.T) {
	conformance.Run(t, func(ctx context.Context, namespace string) (backend.Store, error) {
		return backend.Open(ctx, "mem://conformance/some/jobs/"+namespace)
	})
}

func TestURL(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"mem://name", ""},
		{"mem://name/", ""},
		{"mem://name/a/b/", ""},
		{"mem:", `store URL "mem:" has no name; write mem://name`},
		{"mem:///a", `store URL "mem:///a" has no name; write mem://name`},
		{"mem://name/A", `prefix "A/" is not the beginning of a key`},
		{"mem://name/a//b", `prefix "a//b/" is not the beginning of a key`},
		{"mem://name?a=b", `store URL "mem://name": unknown parameter "a"; mem:// takes none`},
	} {
		_, err := backend.Open(t.Context(), tt.url)
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, backend.ErrInvalid) || err.Error() != tt.want) {
			t.Errorf("%s: %v, want %v", tt.url, err, tt.want)
		}
	}
}

// TestClock shows that an object's time is the bucket's time when the call was made.
func TestClock(t *testing.T) {
	now := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	s := mem.NewBucket(func() time.Time { return now }).Open()
	created, _ := s.Create(t.Context(), "a", nil)
	now = now.Add(time.Hour)
	put, _ := s.Put(t.Context(), "a", nil)
	if created.ModTime != now.Add(-time.Hour) || put.ModTime != now {
		t.Errorf("created at %v, put at %v, now %v", created.ModTime, put.ModTime, now)
	}
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil || o.ModTime != now {
			t.Errorf("listed with %v, %v, want %v", o.ModTime, err, now)
		}
	}
}
