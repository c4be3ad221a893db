package checkpoint

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file takes a second look. A repair drops the checkpoints that lack something,
// so that what a listing merely left out would be lost for good. So no listing
// decides: where it differs from what the checkpoints say, the store is asked by Get.
// If all is well, that costs no request.

// checkUnlisted asks for the segments that the listing left out, or showed with another
// size than the checkpoints that name them.
func (v *verifier) checkUnlisted(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(v.task.job.opts.Requests)
	for _, seg := range v.doubtful() {
		group.Go(func() error { return v.checkOne(ctx, seg) })
	}
	return group.Wait()
}

// doubtful returns the segments of which the listing does not say what the
// checkpoints say.
func (v *verifier) doubtful() (list []format.Segment) {
	seen := make(map[format.Segment]bool)
	for _, s := range v.subjects {
		if s.checkpoint == nil {
			continue
		}
		for _, seg := range s.checkpoint.content.Segments {
			if size, listed := v.sizesOf(seg)[seg.ID]; (!listed || size != seg.Size) && !seen[seg] {
				seen[seg] = true
				list = append(list, seg)
			}
		}
	}
	return list
}

func (v *verifier) checkOne(ctx context.Context, seg format.Segment) error {
	err := v.task.segments.Probe(ctx, seg)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err == nil:
		v.sizesOf(seg)[seg.ID] = seg.Size
		return nil
	case errors.Is(err, fs.ErrNotExist):
		delete(v.sizesOf(seg), seg.ID) // since it was listed
	case !errors.Is(err, ErrCorrupt):
		return err
	}
	v.wrong[seg] = err
	return nil
}
