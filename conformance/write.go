package conformance

import (
	"context"
	"fmt"

	"github.com/holdfast-io/holdfast/backend"
)

func putReplaces(ctx context.Context, e *env) error {
	if _, err := e.a.Create(ctx, "object", []byte("created")); err != nil {
		return err
	}
	for i, text := range []string{"a longer one than was created", "short", "", "again"} {
		s := []backend.Store{e.a, e.b}[i%2]
		o, err := s.Put(ctx, "object", []byte(text))
		if err != nil {
			return err
		}
		if o.Key != "object" || o.Size != int64(len(text)) {
			return violation("Put describes the object", "%+v for object of %d bytes", o, len(text))
		}
		if err := wantContent(ctx, e.b, "object", []byte(text), "Put replaces the object that stands there"); err != nil {
			return err
		}
	}
	return nil
}

// sizes writes objects of several sizes, just above powers of two, because services
// and clients send larger objects in other ways. The largest size is one that is
// still cheap to send.
func sizes(ctx context.Context, e *env) error {
	for i, size := range []int{0, 1, 4 << 10, 1<<20 + 1, 16<<20 + 1} {
		key, data := fmt.Sprint("size-", size), noise(byte(i), size)
		if _, err := e.a.Create(ctx, key, data); err != nil {
			return err
		}
		if err := wantContent(ctx, e.b, key, data, "Create makes an object that holds data"); err != nil {
			return err
		}
		data = noise(byte(100+i), size)
		if _, err := e.a.Put(ctx, key, data); err != nil {
			return err
		}
		if err := wantContent(ctx, e.b, key, data, "Put makes an object that holds data"); err != nil {
			return err
		}
		objects, err := list(ctx, e.b, key, "")
		if err != nil {
			return err
		}
		if len(objects) != 1 || objects[0].Size != int64(size) {
			return violation("List describes the object", "%+v for %s", objects, key)
		}
	}
	return nil
}
