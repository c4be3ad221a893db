package checkpoint

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/catalog"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// data reads the data of a checkpoint's files that was not read for another
// one.
func (v *verifier) data(ctx context.Context, s *subject, all *survey) error {
	var ids []catalog.ID
	for id := range catalog.ID(all.Len()) {
		if all.data.Has(id) && v.wanted(s, all.Chunk(id)) {
			ids = append(ids, id)
		}
	}
	return s.checkpoint.eachFetch(ctx, all.Catalog, ids, func(ctx context.Context, w *fetcher, f *fetch) error {
		return v.check(ctx, s, w, f)
	})
}

// wanted reports whether a chunk is still to be read. What is known to be
// damaged affects this checkpoint too.
func (v *verifier) wanted(s *subject, ch format.Chunk) bool {
	if ch.Segment == (format.SegmentID{}) {
		return true // it is in memory, and no other checkpoint's
	}
	seg := format.Segment{ID: ch.Segment, Task: s.checkpoint.segments.Owner(ch.Segment)}
	if _, ok := v.sizesOf(seg)[ch.Segment]; !ok {
		return false // which is known to be missing
	}
	right, done := v.checked[ch.Identity()]
	if done && !right {
		v.found(s.checkpoint.segments.Key(ch.Segment), Damaged, "", s)
	}
	return !done
}

// check reads some chunks. Those that are not right do not keep it from the
// others, and are read once more, as by twice.
func (v *verifier) check(ctx context.Context, s *subject, w *fetcher, f *fetch) error {
	wrong, err := wrongOf(ctx, w, f, f.chunks)
	if err == nil && len(wrong) > 0 {
		wrong, err = wrongOf(ctx, w, f, slices.Collect(maps.Keys(wrong)))
	}
	if err != nil {
		return err
	}
	key := format.ManifestKey(v.task.log.Dir, s.Seq) // inline data's
	if f.segment != (format.SegmentID{}) {
		key = s.checkpoint.segments.Key(f.segment)
	}
	for _, id := range f.chunks {
		if err := wrong[id]; err != nil {
			v.found(key, kindOf(err), err.Error(), s)
		}
		ch := w.catalog.Chunk(id)
		v.mark(&ch, wrong[id] == nil)
	}
	return nil
}

// wrongOf reads chunks of one fetch, and returns what is wrong with them.
func wrongOf(ctx context.Context, w *fetcher, f *fetch, ids []catalog.ID) (map[catalog.ID]error, error) {
	unread := w.load(ctx, f)
	if unread != nil && (!errors.Is(unread, ErrCorrupt) || errors.Is(unread, ErrGone)) {
		return nil, unread
	}
	wrong := make(map[catalog.ID]error)
	for _, id := range ids {
		err := unread
		if err == nil {
			w.decoded = w.decoded[:0]
			_, err = w.decode(f, id)
		}
		if err != nil {
			wrong[id] = err
		}
	}
	return wrong, nil
}

func (v *verifier) mark(ch *format.Chunk, right bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if right {
		v.live += ch.StoredSize()
	}
	if ch.Segment != (format.SegmentID{}) {
		v.checked[ch.Identity()] = right
	}
}
