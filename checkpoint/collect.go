package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// CollectOptions say how garbage is collected. The zero value is a good choice.
type CollectOptions struct {
	// DryRun only counts what would be deleted.
	DryRun bool
}

// Collected says what a collection deleted, or would have.
type Collected struct {
	Segments  int   `json:"segments"`
	Manifests int   `json:"manifests"`
	Bytes     int64 `json:"bytes"` // in both
}

// Collect deletes what no retained checkpoint needs: what killed processes and
// failed clean-ups have left behind, and the manifests of one-off saves and of
// claims. Anyone may do it at any time, beside owners, saves and readers; it
// fences no one, and what it does not get done the next one does.
//
// A segment is deleted only if it is certain that no one will name it any more,
// which its epoch and writer tell, and never for its age. A manifest is deleted
// when it is older than the fence window before the newest one, by the store's
// clock.
//
// If a retained checkpoint is damaged, it may need segments that nobody knows
// of. Then no segment is deleted, and the error wraps ErrCorrupt.
func (t *Task) Collect(ctx context.Context, opts CollectOptions) (Collected, error) {
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return Collected{}, err
	}
	defer end()
	c := &collector{task: t, dryRun: opts.DryRun}
	_, err = again(ctx, func() (struct{}, error) { return struct{}{}, c.collect(ctx) })
	return c.done, err
}

type collector struct {
	task   *Task
	dryRun bool
	batch  []string  // keys to be deleted
	counts Collected // what they are
	done   Collected
}

// collect reads the newest manifest first, and lists what there is after it:
// what was made in between is the present writer's, or a later one's.
func (c *collector) collect(ctx context.Context) error {
	if c.dryRun {
		c.done = Collected{} // what an attempt that was overtaken has counted, is there still
	}
	s, all, err := c.task.newestAndAll(ctx)
	if err != nil || s == nil {
		return err
	}
	named, damage := c.task.named(ctx, s, all)
	if damage != nil && !errors.Is(damage, ErrCorrupt) && !errors.Is(damage, ErrVersion) {
		return damage
	}
	// The manifests come first: their list shows whether what was read were steps.
	if err := c.collectManifests(ctx, s, all); err != nil {
		return err
	}
	if damage != nil {
		return fmt.Errorf("no segment was deleted: %w", damage)
	}
	return c.collectSegments(ctx, s, named)
}

func (c *collector) collectSegments(ctx context.Context, s *step, named map[format.SegmentID]bool) error {
	dir := c.task.history.dir
	for o, err := range c.task.job.store.List(ctx, format.SegmentPrefix(dir), "") {
		if err != nil {
			return err
		}
		id, ok := format.ParseSegmentKey(dir, o.Key)
		if !ok || named[id] || !s.abandoned(id) {
			continue
		}
		if err := c.add(ctx, o.Key, Collected{Segments: 1, Bytes: o.Size}); err != nil {
			return err
		}
	}
	return c.flush(ctx)
}

func (c *collector) collectManifests(ctx context.Context, s *step, all []format.Retained) error {
	made := map[uint64]time.Time{s.Seq: s.time} // of what was read
	for _, r := range all {
		made[r.Seq] = r.Time
	}
	dir := c.task.history.dir
	found := 0                                // of what was read
	after := format.ManifestKey(dir, s.Seq+1) // s comes first, and older ones behind it
	for o, err := range c.task.job.store.List(ctx, format.ManifestPrefix(dir), after) {
		if err != nil {
			return err
		}
		_, seq, ok := format.ParseManifestKey(o.Key)
		if !ok {
			continue
		}
		at, needed := made[seq]
		same := needed && isSame(at, o.ModTime)
		switch {
		case found == 0 && (seq != s.Seq || !same): // s is gone, or another: all that it says is in doubt
			return c.task.overtaken(s)
		case same:
			found++
		case !needed && s.time.Sub(o.ModTime) > FenceWindow:
			if err := c.add(ctx, o.Key, Collected{Manifests: 1, Bytes: o.Size}); err != nil {
				return err
			}
		}
	}
	if found == 0 {
		return c.task.overtaken(s)
	}
	if err := c.flush(ctx); err != nil || found == len(made) {
		return err
	}
	late, err := c.task.madeLate(ctx, all)
	if err == nil && len(late) > 0 {
		err = c.task.overtaken(s)
	}
	return err
}

// deleteBatch is how many keys are deleted with one call: what S3 takes in one
// request.
const deleteBatch = 1000

func (c *collector) add(ctx context.Context, key string, what Collected) error {
	c.batch = append(c.batch, key)
	c.counts.add(what)
	if len(c.batch) < deleteBatch {
		return nil
	}
	return c.flush(ctx)
}

func (c *collector) flush(ctx context.Context) error {
	keys, counts := c.batch, c.counts
	c.batch, c.counts = nil, Collected{}
	if len(keys) > 0 && !c.dryRun {
		if err := c.task.job.store.Delete(ctx, keys...); err != nil {
			return err
		}
	}
	c.done.add(counts)
	return nil
}

func (c *Collected) add(more Collected) {
	c.Segments += more.Segments
	c.Manifests += more.Manifests
	c.Bytes += more.Bytes
}

// abandoned reports whether no manifest after s can name a segment that neither
// s nor a checkpoint that it retains names: its writer is not the last one, or
// has said that it will make no further manifest. The segments of a higher
// epoch belong to a save or a claim that is under way.
func (s *step) abandoned(id format.SegmentID) bool {
	if id.Epoch != s.Epoch {
		return id.Epoch < s.Epoch
	}
	return id.Writer != s.Writer || s.Released
}

// named returns the segments that step s and the checkpoints that it retains
// name.
func (t *Task) named(ctx context.Context, s *step, all []format.Retained) (map[format.SegmentID]bool, error) {
	named := make(map[format.SegmentID]bool)
	var mu sync.Mutex
	add := func(m *format.Manifest, content *format.Content) {
		mu.Lock()
		defer mu.Unlock()
		for _, seg := range content.Segments {
			named[seg.ID] = true
		}
		for _, at := range m.Spilled() {
			named[at.Segment] = true
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(t.job.opts.Requests)
	for _, r := range all {
		group.Go(func() error {
			m := s.Manifest
			if c := s.checkpoint(); c == nil || c.Seq != r.Seq {
				var err error
				if m, err = t.committed(ctx, r); err != nil {
					return err
				}
			}
			content, err := t.content(ctx, m.Checkpoint)
			if err == nil {
				add(m, content)
			}
			return err
		})
	}
	add(s.Manifest, new(format.Content))
	return named, group.Wait()
}
