package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/conformance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestBroken shows that the suite can fail: each broken store breaks one sentence of
// the contract, and the named case must detect it. For each case there is a broken
// store.
func TestBroken(t *testing.T) {
	cases := make(map[string]conformance.Case)
	idle := make(map[string]bool)
	for _, c := range conformance.Cases() {
		cases[c.Name], idle[c.Name] = c, true
	}
	table := []string{"", "broken store\tcase\tit says"}
	for _, b := range brokenStores {
		t.Run(b.name, func(t *testing.T) {
			delete(idle, b.caught)
			c, ok := cases[b.caught]
			if !ok {
				t.Fatalf("no case is named %q", b.caught)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // some broken stores wait for something that may never happen
			defer cancel()
			err := c.Run(ctx, b.open())
			var seen *conformance.Violation
			if !errors.As(err, &seen) {
				t.Fatalf("case %s does not catch it: %v", b.caught, err)
			}
			table = append(table, fmt.Sprintf("%s\t%s\t%s", b.name, b.caught, seen))
		})
	}
	t.Log(aligned(table))
	for name := range idle {
		t.Errorf("nothing shows that case %s can fail", name)
	}
}

// aligned returns lines with aligned columns.
func aligned(lines []string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = w.Write([]byte(strings.Join(lines, "\n")))
	_ = w.Flush()
	return b.String()
}

// TestUnbroken runs the suite on the wrapper for broken stores, with nothing broken.
func TestUnbroken(t *testing.T) {
	conformance.Run(t, broken{how: func() func(*bent) { return func(*bent) {} }}.open())
}

// TestOpenFails shows that a store that cannot be opened is not a Violation.
func TestOpenFails(t *testing.T) {
	var seen *conformance.Violation
	for _, c := range conformance.Cases() {
		err := c.Run(t.Context(), func(context.Context, string) (backend.Store, error) {
			return nil, backend.ErrNoStore
		})
		if !errors.Is(err, backend.ErrNoStore) || errors.As(err, &seen) {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

// TestCleansUp shows that a case, whether it fails or not, leaves nothing behind and
// closes its handles.
func TestCleansUp(t *testing.T) {
	bucket := mem.NewBucket(clock)
	open := 0
	for _, c := range conformance.Cases() {
		err := c.Run(t.Context(), func(_ context.Context, namespace string) (backend.Store, error) {
			open++
			s := &bent{Store: backend.Prefix(bucket.Open(), namespace+"/")}
			s.create = s.Put // makes some of the cases fail
			s.close = func() error { open--; return s.Store.Close() }
			return s, nil
		})
		t.Logf("%s: %v", c.Name, err)
		for o, err := range bucket.Open().List(t.Context(), "", "") {
			t.Fatalf("case %s leaves %s, %v", c.Name, o.Key, err)
		}
	}
	if open > 0 { // may be negative, because some are closed twice
		t.Errorf("%d handles are still open", open)
	}
}
