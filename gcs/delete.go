package gcs

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
)

// deleteParallel is the largest number of requests that one Delete runs at a time.
// The JSON API cannot delete several objects by one request; its batches only pack
// several HTTP requests into one. A bucket takes 1,000 writes per second before it
// has to scale (https://docs.cloud.google.com/storage/docs/request-rate); 16 parallel
// requests of about 30 ms each stay below that.
const deleteParallel = 16

// Delete removes objects by one request each, several at a time. If the bucket keeps
// versions or soft-deleted objects, it leaves these; the bucket's own rules must
// remove them.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if err := s.ready(ctx, "delete", "", nil); err != nil {
		return err
	}
	for _, key := range keys {
		if err := backend.CheckKey(key); err != nil {
			return s.error("delete", key, err)
		}
	}
	failed := make([]error, len(keys))
	var group errgroup.Group
	group.SetLimit(deleteParallel)
	for i, key := range keys {
		if ctx.Err() != nil {
			failed[i] = s.error("delete", key, ctx.Err())
			break // the other keys would give the same error
		}
		group.Go(func() error {
			failed[i] = s.delete(ctx, key)
			return nil
		})
	}
	_ = group.Wait() // always nil: after one failure, the other keys are still tried
	return errors.Join(failed...)
}

func (s *Store) delete(ctx context.Context, key string) error {
	err := s.bucket.Delete(ctx, s.prefix+key)
	if err == nil {
		return nil
	}
	err = s.failed(ctx, "delete", key, err)
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}
