package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// buffersChanged passes slices of larger arrays. The store must not touch the rest of
// the array.
func buffersChanged(ctx context.Context, e *env) error {
	const contract = "the caller owns every slice that it passes"
	data := noise(1, 10_000)
	for _, verb := range []func(context.Context, string, []byte) (backend.Object, error){e.a.Create, e.a.Put} {
		if _, err := verb(ctx, "object", data[:9_000]); err != nil {
			return err
		}
		if !bytes.Equal(data, noise(1, 10_000)) {
			return violation(contract, "writing an object changed the data that was passed")
		}
	}

	p := noise(2, 100)
	if _, err := e.a.Get(ctx, "object", 0, p[:10]); err != nil {
		return err
	}
	if !bytes.Equal(p[10:], noise(2, 100)[10:]) {
		return violation(contract, "Get wrote past the end of the slice that was passed")
	}

	keys := []string{"z", "object", "a", "m"}
	passed := slices.Clone(keys)
	if err := e.a.Delete(ctx, passed...); err != nil {
		return err
	}
	if !slices.Equal(passed, keys) {
		return violation(contract, "Delete made %q of the keys %q", passed, keys)
	}
	return nil
}

// buffersKept overwrites each buffer as soon as the method has returned.
func buffersKept(ctx context.Context, e *env) error {
	const contract = "a method reads no buffer after it has returned"
	want := noise(3, 10_000)
	for key, verb := range map[string]func(context.Context, string, []byte) (backend.Object, error){
		"created": e.a.Create, "put": e.a.Put,
	} {
		data := bytes.Clone(want)
		if _, err := verb(ctx, key, data); err != nil {
			return err
		}
		clear(data)
		for _, s := range []backend.Store{e.a, e.b} {
			if err := wantContent(ctx, s, key, want, contract); err != nil {
				return err
			}
			p := make([]byte, len(want))
			if _, err := s.Get(ctx, key, 0, p); err != nil {
				return err
			}
			clear(p)
			if err := wantContent(ctx, s, key, want, "Get's result is the caller's"); err != nil {
				return err
			}
		}
	}
	return nil
}

// buffersCancelled overwrites each buffer as soon as a method returns whose context
// has ended, at various moments of the method.
func buffersCancelled(ctx context.Context, e *env) error {
	for i := range 16 {
		key, want := fmt.Sprint("object-", i), noise(byte(i), 256<<10)
		data := bytes.Clone(want)
		err := cutShort(ctx, i, func(ctx context.Context) error {
			_, err := []backend.Store{e.a, e.b}[i%2].Put(ctx, key, data)
			return err
		})
		clear(data)
		if err != nil {
			return err
		}
		const contract = "a method reads no buffer after it has returned, also when the context ended"
		if err := wantWholeOrAbsent(ctx, e.a, key, want, contract); err != nil {
			return err
		}
	}
	return e.getCancelled(ctx)
}

func wantWholeOrAbsent(ctx context.Context, s backend.Store, key string, want []byte, contract string) error {
	p := make([]byte, len(want)+1)
	n, err := s.Get(ctx, key, 0, p)
	if err == nil && !bytes.Equal(p[:n], want) {
		return violation(contract, "%s holds %s, not %s", key, brief(p[:n]), brief(want))
	}
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}

func (e *env) getCancelled(ctx context.Context) error {
	want := noise(1, 256<<10)
	if _, err := e.a.Put(ctx, "object", want); err != nil {
		return err
	}
	buffers := make([][]byte, 16)
	for i := range buffers {
		p := make([]byte, len(want))
		err := cutShort(ctx, i, func(ctx context.Context) error {
			_, err := e.a.Get(ctx, "object", 0, p)
			return err
		})
		if err != nil {
			return err
		}
		clear(p)
		buffers[i] = p
	}
	if err := wantContent(ctx, e.a, "object", want, "Get reads an object"); err != nil {
		return err
	}
	for _, p := range buffers {
		if !bytes.Equal(p, make([]byte, len(p))) {
			return violation("Get does not write to p after it has returned, also when the context ended", "it did")
		}
	}
	return nil
}

// cutShort calls a function with a context that ends soon, a little later in each
// round. It returns nil if the call succeeded or failed with the context's error.
func cutShort(ctx context.Context, round int, call func(context.Context) error) error {
	soon := time.Duration(round*round) * 20 * time.Microsecond
	short, cancel := context.WithTimeoutCause(ctx, soon, errors.New("the suite's own cause"))
	defer cancel()
	err := call(short)
	if err == nil || short.Err() == nil {
		return err
	}
	return wantKind(err, short.Err(), "a method that the end of its context cuts short wraps the context's error", "the method")
}
