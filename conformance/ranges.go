package conformance

import (
	"context"
	"errors"
	"math"

	"github.com/holdfast-io/holdfast/backend"
)

func ranges(ctx context.Context, e *env) error {
	if _, err := e.a.Create(ctx, "ten", []byte("0123456789")); err != nil {
		return err
	}
	if _, err := e.a.Create(ctx, "empty", nil); err != nil {
		return err
	}
	for _, r := range []struct {
		key    string
		offset int64
		length int
		want   string
		err    error
	}{
		{"ten", 0, 1, "0", nil},
		{"ten", 0, 9, "012345678", nil},
		{"ten", 0, 10, "0123456789", nil},
		{"ten", 0, 11, "0123456789", nil},
		{"ten", 0, 1 << 20, "0123456789", nil},
		{"ten", 3, 4, "3456", nil},
		{"ten", 5, 5, "56789", nil},
		{"ten", 5, 6, "56789", nil},
		{"ten", 9, 1, "9", nil},
		{"ten", 9, 1 << 20, "9", nil},
		{"ten", 10, 1, "", backend.ErrRange},
		{"ten", 11, 1, "", backend.ErrRange},
		{"ten", 10, 1 << 20, "", backend.ErrRange},
		{"ten", 1 << 40, 10, "", backend.ErrRange},
		{"ten", math.MaxInt64, 1, "", backend.ErrRange},
		{"ten", math.MaxInt64, 10, "", backend.ErrRange},
		{"ten", math.MaxInt64 - 9, 10, "", backend.ErrRange},
		{"ten", -1, 1, "", backend.ErrRange},
		{"ten", -10, 10, "", backend.ErrRange},
		{"ten", math.MinInt64, 1, "", backend.ErrRange},
		{"ten", 0, 0, "", backend.ErrRange},
		{"ten", 5, 0, "", backend.ErrRange},
		{"ten", 10, 0, "", backend.ErrRange},
		{"empty", 0, 1, "", nil},
		{"empty", 0, 1 << 20, "", nil},
		{"empty", 1, 1, "", backend.ErrRange},
		{"empty", -1, 1, "", backend.ErrRange},
		{"empty", 0, 0, "", backend.ErrRange},
		{"missing", 0, 1, "", backend.ErrNotExist},
		{"missing", 5, 1, "", backend.ErrNotExist},
	} {
		const contract = "Get reads len(p) bytes at offset, or what there is of them"
		p := make([]byte, r.length)
		n, err := e.b.Get(ctx, r.key, r.offset, p)
		if !errors.Is(err, r.err) || r.err == nil && string(p[:n]) != r.want {
			return violation(contract, "Get of %d bytes at %d of object %q returned %d bytes and %v; wanted %q and %v",
				r.length, r.offset, r.key, n, err, r.want, r.err)
		}
	}
	return nil
}
