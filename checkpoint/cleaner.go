package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// A cleaner deletes, in the background, what commits have made needless. What
// it does not get done is garbage that anyone can collect, so its failures
// fail nothing: they are counted, and tried again after the next commit.
type cleaner struct {
	ctx      context.Context // of all that it does
	cancel   context.CancelFunc
	forget   func() bool // that the job's clean-ups may be cut short
	task     *Task
	own      string // what the keys of the writer's own segments begin with
	failures atomic.Int64
	lost     atomic.Int64 // segments that prove that manifests were lost
	cut      atomic.Bool  // it was ended before it had done all
	running  sync.WaitGroup

	mu      sync.Mutex
	queue   []retirement
	garbage []string // keys that could not be deleted yet
	busy    bool

	// For the goroutine that is busy.
	named map[uint64][]string // keys of the segments that a checkpoint needs
	swept bool                // what was there before the writer was collected
	owed  []format.Retained   // checkpoints that are gone, with segments that may not be
	aging []format.Retained   // manifests that are to go when they are old enough
}

// A retirement is what one step changed.
type retirement struct {
	gone, kept []format.Retained
	now        time.Time // of the commit, by the store's clock
	seq        uint64    // of the new checkpoint, if there is one
	segments   []string  // keys of those that it needs
}

// newCleaner returns the cleaner of the writer that made step m, which may be a
// claim: its manifest goes too when it is old enough.
func newCleaner(ctx context.Context, t *Task, s *history.Committed) *cleaner {
	c := &cleaner{task: t, named: make(map[uint64][]string)}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.forget = t.job.life.whenCut(c.cancel)
	c.own = format.WriterPrefix(t.log.Dir, s.Epoch, s.Writer)
	if s.Kind != format.KindCommit {
		c.aging = []format.Retained{{Seq: s.Seq, Time: s.Time}}
	}
	return c
}

// retire is told of a step: the checkpoints that there were before it and those
// that there are since, and the content of its own if it made one.
func (c *cleaner) retire(before, after []format.Retained, s *history.Committed, made *format.Content) {
	r := retirement{gone: history.Dropped(before, after), kept: after, now: s.Time}
	if made != nil {
		r.seq, r.segments = s.Seq, c.keys(s.Manifest, made)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, r)
	if !c.busy {
		c.busy = true
		c.task.job.life.leave(&c.running, c.run)
	}
}

// discard is told of segments that no manifest names, or ever will. They go at
// once, also when the context of the commit has ended: it may have been for lack of
// space that the commit failed.
func (c *cleaner) discard(keys []string) {
	c.task.job.life.leave(&c.running, func() { c.delete(c.ctx, keys) })
}

// close waits until what is under way is done. When ctx ends first, that is cut
// short.
func (c *cleaner) close(ctx context.Context) error {
	defer c.cancel()
	defer c.forget()
	stop := context.AfterFunc(ctx, c.cancel)
	c.running.Wait()
	stop()
	if c.cut.Load() {
		return cutShort(ctx)
	}
	return nil
}

func (c *cleaner) run() {
	ctx := c.ctx
	for {
		r, garbage, ok := c.next()
		if !ok {
			return
		}
		needless, err := c.needless(ctx, r)
		if err != nil {
			c.failed(err)
		}
		c.delete(ctx, append(garbage, needless...))
		c.sweep(ctx)
	}
}

// sweep collects once what earlier writers have left behind.
func (c *cleaner) sweep(ctx context.Context) {
	if c.swept {
		return
	}
	done, left, err := c.task.collect(ctx, CollectOptions{})
	if err != nil {
		c.failed(err)
		return
	}
	c.swept = true
	log := c.task.job.opts.Logger.With("task", c.task.Name())
	if done.Segments > 0 {
		// Whose manifest was lost looks as if it had been killed before it.
		log.Info("segments were deleted that earlier writers have left and no manifest names: these were killed, "+
			"or failed to delete them, or their last manifest was lost", "segments", done.Segments, "bytes", done.Bytes)
	}
	if n := len(left.lost); n > 0 {
		c.lost.Store(int64(n))
		log.Warn("manifests were lost before this owner's claim: segments that prove it were left ("+howToGiveUp+")", "segments", n)
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

func (c *cleaner) delete(ctx context.Context, keys []string) {
	if len(keys) == 0 {
		return
	}
	if err := c.task.job.store.Delete(ctx, keys...); err != nil {
		c.failed(err)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.garbage = append(c.garbage, keys...)
		if n := len(c.garbage) - maxGarbage; n > 0 {
			c.garbage = slices.Delete(c.garbage, 0, n)
		}
	}
}

// maxGarbage is how many keys are kept for another attempt. An owner that may
// not delete, say, leaves the rest to a collector.
const maxGarbage = 1000

func (c *cleaner) failed(err error) {
	c.failures.Add(1)
	if c.ctx.Err() != nil {
		c.cut.Store(true)
		return
	}
	c.task.job.opts.Logger.Warn("a clean-up failed; it is tried again after the next commit",
		"task", c.task.Name(), "err", err)
}

// needless returns the keys that no checkpoint needs any more since r.
func (c *cleaner) needless(ctx context.Context, r retirement) ([]string, error) {
	if r.seq != 0 {
		c.named[r.seq] = r.segments
	}
	c.owed = append(c.owed, r.gone...)
	keys, err := c.needlessSegments(ctx, r.kept)
	if err == nil {
		c.aging = append(c.aging, c.owed...)
		c.owed = nil
	}
	c.aging = slices.DeleteFunc(c.aging, func(m format.Retained) bool {
		old := r.now.Sub(m.Time) > FenceWindow
		if old {
			keys = append(keys, format.ManifestKey(c.task.log.Dir, m.Seq))
		}
		return old
	})
	return keys, err
}

// needlessSegments returns the segments of the checkpoints that are owed, less
// those that one in kept needs.
func (c *cleaner) needlessSegments(ctx context.Context, kept []format.Retained) ([]string, error) {
	needless := make(map[string]bool)
	for _, r := range c.owed {
		keys, err := c.segments(ctx, r)
		if err != nil && !unreadable(err) {
			return nil, err
		}
		for _, key := range keys {
			needless[key] = true
		}
	}
	if err := c.spare(ctx, needless, kept); err != nil {
		return nil, err
	}
	for _, r := range c.owed {
		delete(c.named, r.Seq)
	}
	return slices.Collect(maps.Keys(needless)), nil
}

// spare takes out of needless what the checkpoints in kept need.
func (c *cleaner) spare(ctx context.Context, needless map[string]bool, kept []format.Retained) error {
	var read []format.Retained
	named := make(map[uint64][]string) // of what was read
	for _, r := range kept {           // the new one first, which is known and often needs them all
		if len(needless) == 0 {
			return nil
		}
		keys, known := c.named[r.Seq]
		if !known {
			var err error
			if keys, err = c.segments(ctx, r); err != nil && !unreadable(err) {
				return err
			}
			if err == nil {
				read, named[r.Seq] = append(read, r), keys
			} else {
				c.spareUnknown(needless)
			}
		}
		for _, key := range keys {
			delete(needless, key)
		}
	}
	late, err := c.task.log.MadeLate(ctx, read)
	if err != nil {
		return err
	}
	for _, r := range late {
		delete(named, r.Seq)
		c.spareUnknown(needless)
	}
	maps.Copy(c.named, named)
	return nil
}

// spareUnknown spares what a checkpoint that cannot be read may need. It is from
// before this writer's time, so it needs none of the writer's own segments; of
// the others nobody knows.
func (c *cleaner) spareUnknown(needless map[string]bool) {
	maps.DeleteFunc(needless, func(key string, _ bool) bool { return !strings.HasPrefix(key, c.own) })
}

// unreadable reports whether err says that what a retired checkpoint needed
// cannot be known any more, so that its segments are left to a collector,
// which goes by those that are needed.
func unreadable(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrGone) || errors.Is(err, ErrCorrupt)
}

// segments returns the keys of the segments that a checkpoint needs.
func (c *cleaner) segments(ctx context.Context, r format.Retained) ([]string, error) {
	if keys, ok := c.named[r.Seq]; ok {
		return keys, nil
	}
	m, err := c.task.log.ReadCommit(ctx, r)
	if err != nil {
		return nil, err
	}
	content, err := c.task.log.Content(ctx, m.Checkpoint)
	if err != nil {
		return nil, err
	}
	return c.keys(m, content), nil
}

// keys returns the keys of all segments that a manifest names.
func (c *cleaner) keys(m *format.Manifest, content *format.Content) []string {
	var keys []string
	for _, id := range m.Segments(content) {
		keys = append(keys, c.task.segments.Key(id))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
