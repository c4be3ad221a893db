package conformance

import (
	"context"
	"fmt"
)

const deleteAbsent = "to delete a key that does not exist is no error"

func deletes(ctx context.Context, e *env) error {
	if err := e.populate(ctx, "a/b", "a/b-c", "a/b0", "a/c/d", "ab"); err != nil {
		return err
	}
	for _, keys := range [][]string{
		nil,
		{"missing"},
		{"missing/a/b", "a/x", "missing"},
		{"a/b"},
		{"a/b"},
		{"a/c/d", "a/c/d"},
		{"a/c/d", "a/b0", "a/b"},
	} {
		if err := e.a.Delete(ctx, keys...); err != nil {
			return violation(deleteAbsent, "Delete of %q returned %q", keys, err)
		}
	}
	for _, key := range []string{"a/b", "a/b0", "a/c/d"} {
		if err := wantAbsent(ctx, e.b, key, "Delete removes objects"); err != nil {
			return err
		}
	}
	if err := wantListed(ctx, e.b, "", "", []string{"a/b-c", "ab"}, "Delete removes these objects and no others"); err != nil {
		return err
	}
	if err := e.b.Delete(ctx, "a/b-c"); err != nil {
		return err
	}
	if _, err := e.a.Create(ctx, "a/c/d", []byte("anew")); err != nil {
		return err
	}
	return wantContent(ctx, e.b, "a/c/d", []byte("anew"), "an object can be created where one was deleted")
}

// deleteBatch deletes more keys than a service accepts in one request. Few of the
// keys exist; some of them are just before and after the limits of a request.
func deleteBatch(ctx context.Context, e *env) error {
	all := many(2050)
	var exist []string
	for i := 0; i < len(all); i += 111 {
		exist = append(exist, all[i])
	}
	exist = append(exist, all[998:1003]...)
	exist = append(exist, all[1998:2003]...)
	if err := e.populate(ctx, append(exist, "survivor")...); err != nil {
		return err
	}
	if err := e.a.Delete(ctx, all...); err != nil {
		return violation(deleteAbsent, "Delete of %d keys, %d of which exist, returned %q", len(all), len(exist), fmt.Sprintf("%.200s", err))
	}
	return wantListed(ctx, e.b, "", "", []string{"survivor"}, "Delete removes every key it is given, and no other")
}
