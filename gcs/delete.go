package gcs

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
)

// deleteParallel bounds the requests that one Delete has under way: the JSON
// API has no request for many objects but a batch of the same size in HTTP. A
// bucket takes 1,000 writes per second before it has to scale
// (https://docs.cloud.google.com/storage/docs/request-rate); 16 requests of
// some 30 ms stay below that.
const deleteParallel = 16

// Delete removes objects by one request for each, several at a time. Where the
// bucket keeps versions or soft-deleted objects, those stay behind, for the
// bucket's own rules to remove.
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
			break // the others say the same
		}
		group.Go(func() error {
			failed[i] = s.delete(ctx, key)
			return nil
		})
	}
	_ = group.Wait() // always nil: one failure does not end the others
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
