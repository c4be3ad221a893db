package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/backend"
)

// ordered are keys in byte order. They have another order if they are compared name
// by name, by a locale, or without punctuation.
var ordered = []string{
	"-", "0", "a-", "a-b", "a-b-c", "a.b", "a/-", "a/b", "a/b-c", "a/b.c", "a/b0",
	"a/c-d", "a/c.d", "a/c/d", "a/c/e/f", "a/c0", "a/c_d", "a0", "a_", "aa", "b-", "b/a-a", "b/a/a", "b0", "z",
}

func (e *env) populateOrdered(ctx context.Context) error {
	shuffled := slices.Clone(ordered)
	slices.SortFunc(shuffled, func(a, b string) int { return strings.Compare(a[1:], b[1:]) })
	return e.populate(ctx, shuffled...)
}

func listOrder(ctx context.Context, e *env) error {
	if err := e.populateOrdered(ctx); err != nil {
		return err
	}
	objects, err := list(ctx, e.b, "", "")
	if err != nil {
		return err
	}
	if !slices.Equal(keys(objects), ordered) {
		return violation("List yields the objects in ascending byte order of their keys", "%q", keys(objects))
	}
	for _, o := range objects {
		if o.Size != int64(len(o.Key)) {
			return violation("List describes the objects", "%d bytes instead of %d for %q", o.Size, len(o.Key), o.Key)
		}
	}
	return nil
}

func listPrefixAfter(ctx context.Context, e *env) error {
	if err := e.populateOrdered(ctx); err != nil {
		return err
	}
	prefixes := []string{"", "a", "a-", "a-b", "a.", "a/", "a/b", "a/b-c", "a/c", "a/c/", "b/a", "b/a/", "c"}
	afters := []string{"", "0", "00", "a", "a-b", "a-z", "a/b", "a/c/d", "a/c/dd", "b", "z", "zz"}
	return parallel(ctx, len(prefixes)*len(afters), func(ctx context.Context, i int) error {
		prefix, after := prefixes[i/len(afters)], afters[i%len(afters)]
		want := slices.DeleteFunc(slices.Clone(ordered), func(key string) bool {
			return !strings.HasPrefix(key, prefix) || key <= after
		})
		return wantListed(ctx, e.b, prefix, after, want,
			"List yields the objects whose keys begin with prefix and are greater than after")
	})
}

// listAgain breaks off listings, and ranges over one sequence several times.
func listAgain(ctx context.Context, e *env) error {
	want := []string{"a", "b", "c", "d"}
	if err := e.populate(ctx, want...); err != nil {
		return err
	}
	seq := e.a.List(ctx, "", "")
	for stop := range len(want) {
		got := 0
		for o, err := range seq {
			if err != nil {
				return err
			}
			if o.Key != want[got] {
				return violation("each range over a List lists anew", "range %d begins with %q", stop, o.Key)
			}
			if got++; got > stop {
				break
			}
		}
		if got != stop+1 {
			return violation("each range over a List lists anew", "range %d has %d keys", stop, got)
		}
	}
	return wantListed(ctx, e.a, "", "", want, "a break ends a List, and no more than that")
}

// many returns n keys in ascending order.
func many(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("many/%05d", i)
	}
	return keys
}

// listMany needs three pages, because services send 1,000 keys per page. All tests of
// paging are in this case, because it takes long to make so many objects.
func listMany(ctx context.Context, e *env) error {
	all := many(2050)
	if err := e.populate(ctx, append([]string{"many-before", "many0after"}, all...)...); err != nil {
		return err
	}
	if err := e.listPages(ctx, all); err != nil {
		return err
	}
	for _, stop := range []int{1, 500, 1000, 1001} {
		if err := e.cancelAfter(ctx, stop, len(all)); err != nil {
			return err
		}
	}
	return e.listChanging(ctx, all)
}

func (e *env) listPages(ctx context.Context, all []string) error {
	const contract = "List yields all objects whose keys begin with prefix and are greater than after"
	if err := wantListed(ctx, e.a, "many/", "", all, contract); err != nil {
		return err
	}
	for _, i := range []int{0, 998, 999, 1000, 1001, 2000, len(all) - 2, len(all) - 1} {
		if err := wantListed(ctx, e.b, "many/", all[i], all[i+1:], contract); err != nil {
			return err
		}
	}
	for _, stop := range []int{1, 999, 1000, 1001} {
		var got []string
		for o, err := range e.b.List(ctx, "many/", "") {
			if err != nil {
				return err
			}
			if got = append(got, o.Key); len(got) == stop {
				break
			}
		}
		if !slices.Equal(got, all[:stop]) {
			return violation(contract, "%d keys up to %q, instead of the first %d", len(got), got[max(0, len(got)-1):], stop)
		}
	}
	return nil
}

func (e *env) cancelAfter(ctx context.Context, stop, all int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got := 0
	var failed error
	for _, err := range e.a.List(ctx, "many/", "") {
		if err != nil {
			failed = err
			continue
		}
		if got++; got == stop {
			cancel()
		}
	}
	if errors.Is(failed, context.Canceled) && got < all {
		return nil
	}
	return violation("a List whose context ends returns soon, with an error that wraps the context's",
		"cancelled at key %d, it yielded %d of %d keys and ended with %v", stop, got, all, failed)
}

// listChanging deletes objects that were listed and creates objects that will be.
func (e *env) listChanging(ctx context.Context, all []string) error {
	var got []string
	for o, err := range e.a.List(ctx, "many/", "") {
		if err != nil {
			return err
		}
		if strings.HasSuffix(o.Key, "-new") { // may or may not be listed
			continue
		}
		got = append(got, o.Key)
		if len(got)%50 != 0 {
			continue
		}
		if err := e.b.Delete(ctx, got[len(got)-50:]...); err != nil {
			return err
		}
		if _, err := e.b.Put(ctx, all[min(len(got)+10, len(all)-1)]+"-new", nil); err != nil {
			return err
		}
	}
	if !slices.Equal(got, all) {
		return violation("a List that runs while objects come and go returns every object that existed all the time",
			"%d keys of %d", len(got), len(all))
	}
	return nil
}

// untouched uses a namespace to which nothing was ever written.
func untouched(ctx context.Context, e *env) error {
	const empty = "a namespace that nothing was ever written to lists as empty"
	objects, err := list(ctx, e.a, "", "")
	if err != nil || len(objects) > 0 {
		return violation(empty, "%d objects and error %v", len(objects), err)
	}
	if objects, err = list(ctx, e.a, "a/b", "a/b-c"); err != nil || len(objects) > 0 {
		return violation(empty, "%d objects and error %v", len(objects), err)
	}
	_, err = e.a.Get(ctx, "a/b", 0, make([]byte, 1))
	if err := wantKind(err, backend.ErrNotExist, "Get returns ErrNotExist if there is no such object", "Get"); err != nil {
		return err
	}
	if err := e.a.Delete(ctx, "a/b"); err != nil {
		return violation("to delete a key that does not exist is no error", "%q", err)
	}
	return nil
}
