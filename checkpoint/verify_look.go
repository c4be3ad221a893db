package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file takes a second look. A repair drops the checkpoints that lack something,
// so that what a listing merely left out would be lost for good. So no listing
// decides: where it differs from what the checkpoints say, the store is asked by Get.
// If all is well, that costs no request.

// look asks for the segments that the listing left out, or showed with another
// size than the checkpoints that name them.
func (v *verifier) look(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(v.task.job.opts.Requests)
	for _, seg := range v.doubtful() {
		group.Go(func() error { return v.lookAt(ctx, seg) })
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
			if size, listed := v.segments[seg.ID]; (!listed || size != seg.Size) && !seen[seg] {
				seen[seg] = true
				list = append(list, seg)
			}
		}
	}
	return list
}

func (v *verifier) lookAt(ctx context.Context, seg format.Segment) error {
	err := v.task.probe(ctx, seg)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err == nil:
		v.segments[seg.ID] = seg.Size
		return nil
	case errors.Is(err, fs.ErrNotExist):
		delete(v.segments, seg.ID) // since it was listed
	case !errors.Is(err, ErrCorrupt):
		return err
	}
	v.wrong[seg] = err
	return nil
}

// probe makes sure that a segment is there and has its size, by reading its last
// byte and what may come after. Its error wraps fs.ErrNotExist or ErrCorrupt if that
// is not so.
func (t *Task) probe(ctx context.Context, seg format.Segment) error {
	key := format.SegmentKey(t.history.dir, seg.ID)
	var p [2]byte
	n, err := t.job.store.Get(ctx, key, seg.Size-1, p[:])
	switch {
	case errors.Is(err, backend.ErrRange), err == nil && n == 0:
		return fmt.Errorf("segment %s: %w: it has less than %d bytes", key, ErrCorrupt, seg.Size)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("segment %s: %w", key, fs.ErrNotExist)
	case err == nil && n > 1:
		return fmt.Errorf("segment %s: %w: it has more than %d bytes", key, ErrCorrupt, seg.Size)
	}
	return err
}

// noneAfter makes sure that the store has no manifest after number seq, which a
// listing showed as the last. It returns ErrGone if there is one by now, and an
// error that wraps backend.ErrUnsupported if the store has one and does not list it.
func (t *Task) noneAfter(ctx context.Context, seq uint64) error {
	h := &t.history
	_, err := h.read(ctx, seq+1)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion):
		return err
	}
	listed, _, err := h.newestSeq(ctx)
	if err == nil && listed <= seq {
		return h.hidden(seq + 1)
	}
	if err == nil {
		err = fmt.Errorf("task %q, manifest %d: %w", t.Name(), seq, ErrGone)
	}
	return err
}
