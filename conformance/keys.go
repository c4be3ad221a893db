package conformance

import (
	"context"
	"strings"

	"github.com/holdfast-io/holdfast/backend"
)

// longKey is not as long as a key may be. It leaves room for a [backend.Prefix], which
// the store below counts as a part of the key.
var longKey = strings.Repeat("/"+strings.Repeat("n", 31), backend.MaxKeyLen/32-2)[1:]

// keysAccepted uses keys that look like a driver's own files, options, numbers, or
// parts of a listing.
func keysAccepted(ctx context.Context, e *env) error {
	for _, key := range []string{
		"0", "-", "_", "--", "-rf", "a..b", "a.-._", "1e9", "null", "index.html",
		"b.tmp", "tmp", "tmp-1", "c.lock", "d.attrs", "e.partial", "etag", "versions",
		"_x/_y", "-x/-y", "tmp1/x", "g/h/i/j/k/l/m/n/o/p", "q.r/s.t",
		strings.Repeat("n", backend.MaxNameLen),
		strings.Repeat("p", backend.MaxNameLen) + "/" + strings.Repeat("q", backend.MaxNameLen),
		longKey,
	} {
		if err := e.acceptKey(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) acceptKey(ctx context.Context, key string) error {
	const contract = "every key that CheckKey allows can be used with every verb"
	o, err := e.a.Create(ctx, key, []byte("created"))
	if err != nil || o.Key != key {
		return violation(contract, "Create of %q returned %+v, %v", key, o, err)
	}
	if _, err = e.a.Put(ctx, key, []byte("replaced")); err != nil {
		return violation(contract, "Put of %q returned %q", key, err)
	}
	if err := wantContent(ctx, e.b, key, []byte("replaced"), contract); err != nil {
		return err
	}
	if err := wantListed(ctx, e.b, "", "", []string{key}, contract); err != nil {
		return err
	}
	if err := wantListed(ctx, e.b, key, "", []string{key}, contract); err != nil {
		return err
	}
	if err = e.a.Delete(ctx, key); err != nil {
		return violation(contract, "Delete of %q returned %q", key, err)
	}
	return wantListed(ctx, e.b, "", "", nil, contract)
}

func keysRefused(ctx context.Context, e *env) error {
	const contract = "a method given a key that breaks the rules fails with ErrInvalid before it does anything"
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", "//", ".", "..", "../a", "a/..", "a/../b", "a/.", "./a",
		".a", "a/.b", "a.", "a./b", "A", "aBc", "a b", " ", "a\x00", "a\nb", "a\tb", "a\\b", "\u00e9", "\xff",
		"a%2fb", "%", "a:b", "a*", "a?b", "a#b", "a+b", "a=b", "a&b", "a@b", "~", "a\x7f",
		strings.Repeat("n", backend.MaxNameLen+1),
		longKey + "/" + strings.Repeat("n", backend.MaxKeyLen-len(longKey)),
	} {
		for _, v := range verbs {
			if v.name == "list" && backend.CheckPrefix(key) == nil {
				continue
			}
			if err := wantKind(v.call(ctx, e.a, key), backend.ErrInvalid, contract, v.name+" of "+brief([]byte(key))); err != nil {
				return err
			}
		}
	}

	if _, err := e.a.Create(ctx, "valid", nil); err != nil {
		return err
	}
	err := e.a.Delete(ctx, "valid", "in valid")
	if err := wantKind(err, backend.ErrInvalid, contract, "Delete of a valid key and an invalid one"); err != nil {
		return err
	}
	return wantListed(ctx, e.b, "", "", []string{"valid"}, contract)
}
