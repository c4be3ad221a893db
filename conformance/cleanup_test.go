package conformance

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
)

// A throttled store refuses its first Deletes of more than one object.
type throttled struct {
	backend.Store
	refuse *int
	with   error
}

func (s throttled) Delete(ctx context.Context, keys ...string) error {
	if *s.refuse > 0 {
		*s.refuse--
		return s.with
	}
	return s.Store.Delete(ctx, keys...)
}

// While it cleans up, the suite tries again if the service throttles.
func TestCleanUpIsTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		with  error
		times int
		fails bool
	}{
		"slow down":       {backend.ErrThrottled, 3, false},
		"for ever":        {backend.ErrThrottled, 1000, true},
		"it is forbidden": {backend.ErrPermission, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bucket := mem.NewBucket(time.Now)
				refuse := c.times
				open := func(context.Context, string) (backend.Store, error) {
					return throttled{bucket.Open(), &refuse, c.with}, nil
				}
				put := Case{"put", func(ctx context.Context, e *env) error {
					_, err := e.a.Put(ctx, "x", nil)
					return err
				}}
				if err := put.Run(t.Context(), open); (err != nil) != c.fails || c.fails && !errors.Is(err, c.with) {
					t.Errorf("err = %v", err)
				}
			})
		})
	}
}

// A slow store is raced against for a minute, and not for ever.
func TestRaceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := mem.NewBucket(time.Now)
		open := func(context.Context, string) (backend.Store, error) { return slow{bucket.Open()}, nil }
		notes := 0
		start := time.Now()
		err := Case{"create-race", createRace}.RunNoting(t.Context(), open, func(string, ...any) { notes++ })
		if took := time.Since(start); err != nil || notes != 1 || took > 2*time.Minute {
			t.Errorf("took %v, %d notes: %v", took, notes, err)
		}
	})
}

// A slow store takes 5 seconds to create an object.
type slow struct{ backend.Store }

func (s slow) Create(ctx context.Context, key string, data []byte) (backend.Object, error) {
	time.Sleep(5 * time.Second)
	return s.Store.Create(ctx, key, data)
}
