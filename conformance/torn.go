package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
)

// tornPut replaces an object through two handles while others read it.
func tornPut(ctx context.Context, e *env) error {
	if _, err := e.a.Create(ctx, "object", version(0)); err != nil {
		return err
	}
	const writers, puts = 4, 20
	write := func(ctx context.Context) error {
		return parallel(ctx, writers, func(ctx context.Context, w int) error {
			for i := range puts {
				if _, err := []backend.Store{e.a, e.b}[w%2].Put(ctx, "object", version(w*puts+i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return e.readWhile(ctx, write, func(ctx context.Context, s backend.Store) error {
		return readWhole(ctx, s, "object")
	})
}

// tornCreate looks for objects before and while they are created.
func tornCreate(ctx context.Context, e *env) error {
	for i := range 10 {
		key, data := fmt.Sprint("object-", i), version(longest-i)
		create := func(ctx context.Context) error {
			_, err := e.a.Create(ctx, key, data)
			return err
		}
		err := e.readWhile(ctx, create, func(ctx context.Context, s backend.Store) error {
			if err := readWhole(ctx, s, key); !errors.Is(err, backend.ErrNotExist) {
				return err
			}
			objects, err := list(ctx, s, key, "")
			if len(objects) > 0 && objects[0].Size != int64(len(data)) {
				return violation(atomic, "List shows %d bytes of %d", objects[0].Size, len(data))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readWhile calls look through both handles, again and again while write runs, and
// once more after it.
func (e *env) readWhile(ctx context.Context, write func(context.Context) error,
	look func(context.Context, backend.Store) error,
) error {
	g, ctx := errgroup.WithContext(ctx)
	written := make(chan struct{})
	g.Go(func() error {
		defer close(written)
		return write(ctx)
	})
	for _, s := range []backend.Store{e.a, e.b, e.b} {
		g.Go(func() error {
			for {
				if err := look(ctx, s); err != nil {
					return err
				}
				select {
				case <-written:
					return look(ctx, s)
				default:
				}
			}
		})
	}
	return g.Wait()
}

const atomic = "Create and Put are atomic: no one ever sees a part of an object"

const longest = 255 // the number of the last version

// version returns the content of version v of an object. No part of it, and no
// mixture of two versions, is another version.
func version(v int) []byte { return bytes.Repeat([]byte{byte(v)}, 40_000+1_000*v) }

func readWhole(ctx context.Context, s backend.Store, key string) error {
	p := make([]byte, len(version(longest))+1)
	n, err := s.Get(ctx, key, 0, p)
	if err != nil {
		return err
	}
	if n == 0 || !bytes.Equal(p[:n], version(int(p[0]))) {
		return violation(atomic, "Get read %s", brief(p[:n]))
	}
	return nil
}
