package checkpoint

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A cleaner deletes, in the background, what an owner's commits have made
// needless. What it does not get done is garbage that anyone can collect, so
// its failures fail nothing: they are counted, and tried again after the next
// commit.
type cleaner struct {
	task     *Task
	failures atomic.Int64
	running  sync.WaitGroup

	mu      sync.Mutex
	queue   []retirement
	garbage []string
	busy    bool

	// For the goroutine that is busy.
	named map[uint64][]string // keys of the segments that a checkpoint needs
	aging []format.Retained   // manifests that are to go when they are old enough
}

// A retirement is what one commit changed.
type retirement struct {
	gone, kept []format.Retained
	now        time.Time // of the commit, by the store's clock
}

func newCleaner(t *Task, claim *step) *cleaner {
	return &cleaner{
		task:  t,
		named: make(map[uint64][]string),
		aging: []format.Retained{{Seq: claim.Seq, Time: claim.time}},
	}
}

// retire is told of a commit: the checkpoints before it, and those since.
func (c *cleaner) retire(before, after []format.Retained, now time.Time) {
	gone := slices.DeleteFunc(slices.Clone(before), func(r format.Retained) bool {
		return slices.ContainsFunc(after, func(k format.Retained) bool { return k.Seq == r.Seq })
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, retirement{gone, after, now})
	if !c.busy {
		c.busy = true
		c.running.Go(c.run)
	}
}

// discard is told of segments that no manifest names, or ever will.
func (c *cleaner) discard(keys []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.garbage = append(c.garbage, keys...)
}

// close waits until what is under way is done.
func (c *cleaner) close() { c.running.Wait() }

func (c *cleaner) run() {
	ctx := context.Background()
	for {
		r, garbage, ok := c.next()
		if !ok {
			return
		}
		needless, err := c.needless(ctx, r)
		garbage = append(garbage, needless...)
		if err == nil && len(garbage) > 0 {
			err = c.task.job.store.Delete(ctx, garbage...)
		}
		if err != nil {
			c.failures.Add(1)
			c.task.job.opts.Logger.Warn("clean-up after a commit failed; it is tried again after the next",
				"task", c.task.Name(), "err", err)
			c.discard(garbage)
		}
	}
}

// next takes a retirement off the queue, or ends the run.
func (c *cleaner) next() (retirement, []string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		c.busy = false
		return retirement{}, nil, false
	}
	r, garbage := c.queue[0], c.garbage
	c.queue, c.garbage = c.queue[1:], nil
	return r, garbage, true
}

// needless returns the keys that no checkpoint needs any more since r.
func (c *cleaner) needless(ctx context.Context, r retirement) ([]string, error) {
	var keys []string
	segments, err := c.needlessSegments(ctx, r)
	if err == nil {
		keys = segments
	}
	c.aging = append(c.aging, r.gone...)
	c.aging = slices.DeleteFunc(c.aging, func(m format.Retained) bool {
		old := r.now.Sub(m.Time) > FenceWindow
		if old {
			keys = append(keys, format.ManifestKey(c.task.history.dir, m.Seq))
		}
		return old
	})
	return keys, err
}

func (c *cleaner) needlessSegments(ctx context.Context, r retirement) ([]string, error) {
	if len(r.gone) == 0 {
		return nil, nil
	}
	needless := make(map[string]bool)
	for _, g := range r.gone {
		keys, err := c.segments(ctx, g)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			needless[key] = true
		}
		delete(c.named, g.Seq)
	}
	for _, k := range r.kept {
		keys, err := c.segments(ctx, k)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			delete(needless, key)
		}
	}
	return slices.Collect(maps.Keys(needless)), nil
}

// segments returns the keys of the segments that a checkpoint needs.
func (c *cleaner) segments(ctx context.Context, r format.Retained) ([]string, error) {
	if keys, ok := c.named[r.Seq]; ok {
		return keys, nil
	}
	m, err := c.task.history.read(ctx, r.Seq)
	if err != nil {
		return nil, err
	}
	content, err := c.task.content(ctx, m.Checkpoint)
	if err != nil {
		return nil, err
	}
	keys := segmentKeys(c.task.history.dir, m, content)
	c.named[r.Seq] = keys
	return keys, nil
}

// segmentKeys returns the keys of all segments that a manifest names.
func segmentKeys(dir string, m *format.Manifest, content *format.Content) []string {
	ids := make(map[format.SegmentID]bool)
	for _, s := range content.Segments {
		ids[s.ID] = true
	}
	for _, at := range m.Spilled() {
		ids[at.Segment] = true
	}
	var keys []string
	for id := range ids {
		keys = append(keys, format.SegmentKey(dir, id))
	}
	return keys
}
