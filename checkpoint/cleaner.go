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

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// A cleaner deletes, in the background, what nothing needs after a commit. Whatever it
// does not delete is garbage that anyone can collect later. So its failures fail no
// commit: they are counted, and the deletions are tried again after the next commit.
type cleaner struct {
	ctx      context.Context // of all that it does
	cancel   context.CancelFunc
	forget   func() bool // ends the cleaner's registration with the job's lifetime
	task     *Task
	own      string // prefix of the keys of the writer's own segments
	alone    bool   // it needs no turn: whoever has made it waits for its only clean-up
	failures atomic.Int64
	lost     atomic.Int64          // how many segments prove that manifests were lost
	cut      atomic.Bool           // it was interrupted before it had finished
	broken   atomic.Pointer[error] // why the history cannot be continued, if a look has shown that
	running  sync.WaitGroup

	mu      sync.Mutex
	pending *retirement // what no clean-up has begun with; nil if there is nothing
	garbage []string    // keys that could not be deleted yet
	busy    bool

	// These belong to the goroutine that is busy.
	named map[uint64][]string // by checkpoint: keys of the segments that it needs
	swept bool                // what earlier writers have left was collected
	skip  int                 // how many clean-ups go by before that is tried again
	tried int                 // how often it has failed
	watch watch
	owed  []format.Retained // retired checkpoints whose segments may not be deleted yet
	aging []format.Retained // manifests to be deleted when they are old enough, the oldest first
}

// A retirement is what one manifest has changed in the list of checkpoints, or several, one after the
// other.
type retirement struct {
	by            *history.Committed // the last manifest
	manifests     int                // how many: what others have amended counts as one
	dropped, kept []format.Retained
	now           time.Time           // of the last commit, by the store's clock
	made          map[uint64][]string // by new checkpoint: keys of the segments that it needs
	aging         []format.Retained   // manifests that are not retained: amendments
	lists         []string            // keys of segments with parts of lists that nobody needs any more
}

// add makes r what a later one has changed, too. Of a checkpoint that came and went while r waited it
// keeps what the newest does not need: for each commit, what waits grows by little more than that.
func (r *retirement) add(later *retirement) {
	newest := later.made[later.by.Seq]
	for _, gone := range later.dropped {
		if keys, known := r.made[gone.Seq]; known {
			r.made[gone.Seq] = without(keys, newest)
		}
	}
	r.by, r.kept, r.now = later.by, later.kept, later.now
	r.manifests += later.manifests
	r.dropped = slices.Concat(later.dropped, r.dropped)
	r.aging = append(r.aging, later.aging...)
	r.lists = append(r.lists, later.lists...)
	maps.Copy(r.made, later.made)
}

// without returns the keys that are not among others, which are sorted.
func without(keys, others []string) (left []string) {
	for _, key := range keys {
		if _, found := slices.BinarySearch(others, key); !found {
			left = append(left, key)
		}
	}
	return left
}

// newCleaner returns the cleaner of the writer that made manifest s. If s is a claim, it
// is deleted too when it is old enough.
func newCleaner(ctx context.Context, t *Task, s *history.Committed) *cleaner {
	c := &cleaner{task: t, named: make(map[uint64][]string), watch: newWatch(s)}
	c.ctx, c.cancel = context.WithCancel(backend.WithUrgency(ctx, backend.Background))
	c.forget = t.job.life.whenCut(c.cancel)
	c.own = format.WriterPrefix(t.log.Dir, s.Epoch, s.Writer)
	if s.Kind != format.KindCommit {
		c.aging = []format.Retained{{Seq: s.Seq, Time: s.Time}}
	}
	return c
}

// retire starts the clean-up after manifest s, which follows base. before and after are the
// checkpoints that existed before it and that exist since. made is the content of the
// checkpoint that s has committed, or nil.
func (c *cleaner) retire(before, after []format.Retained, base, s *history.Committed, made *format.Content) {
	r := c.retirement(before, after, base, s)
	if made != nil {
		r.made[s.Seq] = c.keys(s.Manifest, made)
	}
	c.enqueue(r)
}

// retirement returns what manifest s, which comes after base, has changed in the list of checkpoints.
func (c *cleaner) retirement(before, after []format.Retained, base, s *history.Committed) *retirement {
	return &retirement{
		by: s, manifests: 1, dropped: history.Dropped(before, after), kept: after, now: s.Time,
		made: make(map[uint64][]string), lists: c.listKeys(base, s),
	}
}

// listKeys returns the keys of the segments with the list of base that manifest s, which
// comes after base, does not name. No later manifest names them either.
func (c *cleaner) listKeys(base, s *history.Committed) (keys []string) {
	for _, id := range base.OutdatedBy(s) {
		keys = append(keys, c.task.segments.Key(id))
	}
	return keys
}

// amended is told that others have amended the task: what they dropped, and that the
// manifests after base, up to newest, are amendments. These go when they are old
// enough, by the time of the last one, which is later than those of the others.
func (c *cleaner) amended(before, after []format.Retained, base, newest *history.Committed) {
	r := c.retirement(before, after, base, newest)
	for seq := base.Seq + 1; seq <= newest.Seq; seq++ {
		r.aging = append(r.aging, format.Retained{Seq: seq, Time: newest.Time})
	}
	c.enqueue(r)
}

func (c *cleaner) enqueue(r *retirement) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending != nil {
		c.pending.add(r)
	} else {
		c.pending = r
	}
	if !c.busy {
		c.busy = true
		c.task.job.life.leave(&c.running, c.run)
	}
}

// discard deletes segments that no manifest names or ever will. It does so at once, even
// if the context of the commit has ended: the commit may have failed for lack of space.
func (c *cleaner) discard(keys []string) {
	c.task.job.life.leave(&c.running, func() { c.delete(c.ctx, keys) })
}

// close waits until the clean-ups under way are done. When ctx ends first, it interrupts
// them.
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

// cleanUps is how many clean-ups of a job there are at a time, of all its owners: they are background
// work, but each has in memory what it has read. One whose store does not answer keeps its turn
// until it is given up.
const cleanUps = 16

func (c *cleaner) run() {
	for c.isPending() {
		c.cleanUp()
	}
}

// cleanUp does what is pending when its turn has come: that may be more by then.
func (c *cleaner) cleanUp() {
	ctx := c.ctx
	if turns := c.task.job.cleanUps; !c.alone && turns.Acquire(ctx, 1) == nil { // if it fails, so will every request
		defer turns.Release(1)
	}
	r, garbage := c.take()
	needless, err := c.needless(ctx, r)
	if err != nil {
		c.failed(err)
	}
	c.delete(ctx, slices.Concat(garbage, r.lists, needless))
	c.sweep(ctx)
	c.look(ctx, r)
}

// maxTried bounds how seldom a sweep that fails is tried again: once in a thousand clean-ups.
const maxTried = 10

// sweep collects once what earlier writers have left behind. If that fails, it is tried
// again in the next clean-up, and then less and less often: beside a checkpoint that is
// damaged it fails each time, after it has listed everything.
func (c *cleaner) sweep(ctx context.Context) {
	if c.swept {
		return
	}
	if c.skip > 0 {
		c.skip--
		return
	}
	done, left, err := c.task.collect(ctx, CollectOptions{})
	if err != nil {
		c.failed(err)
		c.tried = min(c.tried+1, maxTried)
		c.skip = 1<<c.tried - 2
		return
	}
	c.swept = true
	log := c.task.job.opts.Logger.With("task", c.task.Name())
	if done.Segments > 0 {
		// A writer whose manifest was lost cannot be told from one that was killed before
		// it made its manifest.
		log.Info("segments were deleted that earlier writers have left and no manifest names: these were killed, "+
			"or failed to delete them, or their last manifest was lost", "segments", done.Segments, "bytes", done.Bytes)
	}
	if n := len(left.lost); n > 0 {
		c.lost.Store(int64(n))
		log.Warn("manifests were lost before this owner's claim: segments that prove it were left ("+howToGiveUp+")", "segments", n)
	}
}

// isPending reports whether there is something to do, or else ends the run.
func (c *cleaner) isPending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = c.pending != nil
	return c.busy
}

// take takes what is pending, and what could not be deleted before.
func (c *cleaner) take() (*retirement, []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, garbage := c.pending, c.garbage
	c.pending, c.garbage = nil, nil
	return r, garbage
}

func (c *cleaner) delete(ctx context.Context, keys []string) {
	for len(keys) > 0 {
		some := keys[:min(len(keys), maxGarbage)]
		if err := c.task.job.store.Delete(ctx, some...); err != nil {
			c.failed(err)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.garbage = append(c.garbage, some...)
			if n := len(c.garbage) - maxGarbage; n > 0 {
				c.garbage = slices.Delete(c.garbage, 0, n)
			}
			return
		}
		keys = keys[len(some):]
	}
}

// maxGarbage bounds how many keys are deleted at a time, and remembered for another attempt. The
// rest is left to a collector. That happens if, for example, the owner has no permission to delete.
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
func (c *cleaner) needless(ctx context.Context, r *retirement) ([]string, error) {
	maps.Copy(c.named, r.made)
	c.owed = append(c.owed, r.dropped...)
	c.age(r.aging)
	keys, err := c.needlessSegments(ctx, r.kept)
	if err == nil {
		c.age(c.owed)
		c.owed = nil
	}
	for len(c.aging) > 0 && r.now.Sub(c.aging[0].Time) > FenceWindow {
		keys = append(keys, format.ManifestKey(c.task.log.Dir, c.aging[0].Seq))
		c.aging = c.aging[1:]
	}
	return keys, err
}

// age adds to c.aging. Most are younger than all others, of which there may be thousands.
func (c *cleaner) age(list []format.Retained) {
	for _, m := range slices.Backward(list) { // lists of checkpoints have the latest first
		i := len(c.aging)
		for i > 0 && c.aging[i-1].Time.After(m.Time) {
			i--
		}
		c.aging = slices.Insert(c.aging, i, m)
	}
}

// needlessSegments returns the segments of the checkpoints in c.owed, without those that
// a checkpoint in kept needs.
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

// spare takes out of the map what the checkpoints in kept need.
func (c *cleaner) spare(ctx context.Context, needless map[string]bool, kept []format.Retained) error {
	var read []format.Retained
	named := make(map[uint64][]string) // of what was read
	for _, r := range kept {           // the new one first: it is in memory, and often needs all of them
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

// spareUnknown takes out of the map what a checkpoint that cannot be read may need. That
// checkpoint is older than this writer, so it needs none of the writer's own segments. It
// may need any other.
func (c *cleaner) spareUnknown(needless map[string]bool) {
	maps.DeleteFunc(needless, func(key string, _ bool) bool { return !strings.HasPrefix(key, c.own) })
}

// unreadable reports whether err says that a checkpoint cannot be read, so that it is not
// known which segments it needs. The segments of a retired one are then left to a
// collector, which need not know: it deletes all that the other checkpoints do not name.
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

// keys returns the keys of all segments that a manifest's checkpoint needs.
func (c *cleaner) keys(m *format.Manifest, content *format.Content) []string {
	var keys []string
	for _, id := range m.Segments(content) {
		keys = append(keys, c.task.segments.Key(id))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
