package conformance

import (
	"context"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// tolerance is what the contract calls "a few seconds".
const tolerance = 5 * time.Second

// times checks the times of objects. If the store's clock and this machine's agree,
// it cannot tell which one was used: the driver's own tests must check that.
func times(ctx context.Context, e *env) error {
	created, err := e.a.Create(ctx, "created", []byte("1"))
	if err != nil {
		return err
	}
	put, err := e.b.Put(ctx, "put", []byte("2"))
	if err != nil {
		return err
	}
	replaced, err := e.a.Put(ctx, "put", []byte("3"))
	if err != nil {
		return err
	}
	last := created.ModTime
	for _, o := range []backend.Object{created, put, replaced} {
		if o.ModTime.Year() < 2000 {
			return violation("ModTime is the time at which the object came to be", "%v for %s", o.ModTime, o.Key)
		}
		if o.ModTime.Before(last.Add(-tolerance)) {
			return violation("ModTime is never earlier than the moment of the call", "%v for %s, after %v", o.ModTime, o.Key, last)
		}
		last = o.ModTime
	}

	objects, err := list(ctx, e.b, "", "")
	if err != nil {
		return err
	}
	if err := wantListed(ctx, e.b, "", "", []string{"created", "put"}, visible); err != nil {
		return err
	}
	for i, o := range []backend.Object{created, replaced} {
		if off := objects[i].ModTime.Sub(o.ModTime).Abs(); off > tolerance {
			return violation("Create, Put and List agree about an object's time to within a few seconds",
				"%v when it was written, %v when listed", o.ModTime, objects[i].ModTime)
		}
	}
	return nil
}
