package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
)

// A Violation says which sentence of the contract a store broke, and what was seen.
type Violation struct {
	Contract string
	Seen     string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("contract: %s; seen: %s", v.Contract, v.Seen)
}

func violation(contract, seen string, args ...any) error {
	return &Violation{contract, fmt.Sprintf(seen, args...)}
}

// wantKind returns a Violation unless err is of the kind.
func wantKind(err, kind error, contract, call string) error {
	switch {
	case errors.Is(err, kind):
		return nil
	case err == nil:
		return violation(contract, "%s returned no error, instead of %q", call, kind)
	}
	return violation(contract, "%s returned %q, which is not %q", call, err, kind)
}

// wantContent returns a Violation unless the object has exactly the content want.
func wantContent(ctx context.Context, s backend.Store, key string, want []byte, contract string) error {
	p := make([]byte, len(want)+1)
	n, err := s.Get(ctx, key, 0, p)
	switch {
	case errors.Is(err, backend.ErrNotExist):
		return violation(contract, "%s is not there: %v", key, err)
	case err != nil:
		return err
	case !bytes.Equal(p[:n], want):
		return violation(contract, "%s holds %s, not %s", key, brief(p[:n]), brief(want))
	}
	return nil
}

// wantAbsent returns a Violation if there is an object at key.
func wantAbsent(ctx context.Context, s backend.Store, key, contract string) error {
	_, err := s.Get(ctx, key, 0, make([]byte, 1))
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return violation(contract, "there is an object at %s", key)
}

// wantListed returns a Violation unless the listing consists of the keys.
func wantListed(ctx context.Context, s backend.Store, prefix, after string, want []string, contract string) error {
	objects, err := list(ctx, s, prefix, after)
	if err != nil {
		return err
	}
	got := keys(objects)
	if slices.Equal(got, want) {
		return nil
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	return violation(contract, "List of prefix %q after %q has %d keys instead of %d; from number %d on %q instead of %q",
		prefix, after, len(got), len(want), i, head(got[i:]), head(want[i:]))
}

func head(keys []string) []string { return keys[:min(len(keys), 3)] }

// list returns the objects of a List, and checks the rules for every listing.
func list(ctx context.Context, s backend.Store, prefix, after string) ([]backend.Object, error) {
	const order = "List yields keys that begin with prefix and are greater than after, in ascending byte order"
	var objects []backend.Object
	var failed error
	last := after
	for o, err := range s.List(ctx, prefix, after) {
		switch {
		case failed != nil:
			return nil, violation("List yields an error last", "after %q it went on with %q, %v", failed, o.Key, err)
		case err != nil && o != backend.Object{}:
			return nil, violation("List yields a zero Object with an error", "%v with %q", o, err)
		case err != nil:
			failed = err
			continue
		case !strings.HasPrefix(o.Key, prefix) || o.Key <= last:
			return nil, violation(order, "List of prefix %q after %q yielded %q, %q", prefix, after, last, o.Key)
		}
		last = o.Key
		objects = append(objects, o)
	}
	return objects, failed
}

func keys(objects []backend.Object) []string {
	keys := make([]string, len(objects))
	for i, o := range objects {
		keys[i] = o.Key
	}
	return keys
}

// verbs calls each method once. List uses the key as its prefix.
var verbs = []struct {
	name string
	call func(ctx context.Context, s backend.Store, key string) error
}{
	{"create", func(ctx context.Context, s backend.Store, key string) error {
		_, err := s.Create(ctx, key, []byte("by create"))
		return err
	}},
	{"put", func(ctx context.Context, s backend.Store, key string) error {
		_, err := s.Put(ctx, key, []byte("by put"))
		return err
	}},
	{"get", func(ctx context.Context, s backend.Store, key string) error {
		_, err := s.Get(ctx, key, 0, make([]byte, 16))
		return err
	}},
	{"list", func(ctx context.Context, s backend.Store, key string) error {
		_, err := list(ctx, s, key, "")
		return err
	}},
	{"delete", func(ctx context.Context, s backend.Store, key string) error {
		return s.Delete(ctx, key)
	}},
}

// populate puts small objects, through both handles.
func (e *env) populate(ctx context.Context, keys ...string) error {
	return parallel(ctx, len(keys), func(ctx context.Context, i int) error {
		_, err := []backend.Store{e.a, e.b}[i%2].Put(ctx, keys[i], []byte(keys[i]))
		return err
	})
}

// parallel calls f with 0 to n-1, up to 16 at a time, until one call fails.
func parallel(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range n {
		g.Go(func() error { return f(ctx, i) })
	}
	return g.Wait()
}

// noise returns n bytes that hardly compress and depend only on seed.
func noise(seed byte, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p) // never fails
	return p
}

func brief(p []byte) string {
	if len(p) <= 32 {
		return fmt.Sprintf("%q", p)
	}
	return fmt.Sprintf("%d bytes that begin with %x", len(p), p[:8])
}
