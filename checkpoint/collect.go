package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// CollectOptions say how garbage is collected. The zero value is a good choice.
type CollectOptions struct {
	// DryRun only counts what would be deleted.
	DryRun bool

	// Lost deletes also what proves that manifests were lost, or may be of a save that
	// was killed before its manifest. So that nobody can name that any more, the task is
	// claimed and released first, unless all of it is of earlier epochs: which fences
	// whoever owns the task, and whatever save is under way.
	Lost bool
	// Fence does so although the task is claimed.
	Fence bool
}

// CollectResult says what a collection deleted, or would have.
type CollectResult struct {
	Segments  int   `json:"segments"`
	Manifests int   `json:"manifests"`
	Bytes     int64 `json:"bytes"` // in both
}

// left is how many segments a collection left where they are although nothing in the
// store names them, and although they are not new.
type left struct {
	// inFlight are those that a save or a commit may yet name, and that were sent longer
	// ago than the fence window, by the machine's clock, which decides nothing.
	inFlight int
	lost     []format.SegmentID // those that prove that manifests were lost
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
//
// What proves that manifests were lost is left unless the options say otherwise, and
// so is what a save or a commit may yet name; Options.Logger is told of the first, and
// of what has been in flight for longer than the fence window. If no manifest is there
// at all, the error wraps ErrLost. With Lost, a task that is claimed is refused with
// ErrClaimed if it would have to be claimed.
func (t *Task) Collect(ctx context.Context, opts CollectOptions) (CollectResult, error) {
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return CollectResult{}, err
	}
	defer end()
	done, left, err := t.collect(ctx, opts)
	log := t.job.opts.Logger.With("task", t.Name())
	if n := len(left.lost); n > 0 {
		log.WarnContext(ctx, "manifests were lost: segments that prove it were left ("+howToGiveUp+")", "segments", n)
	}
	if left.inFlight > 0 {
		log.InfoContext(ctx, "segments were left that were sent more than an hour ago, and that a save or a commit may yet name: "+
			"that is slow, or it was killed, or its manifest was lost", "segments", left.inFlight)
	}
	return done, err
}

// howToGiveUp says how to delete what was left.
const howToGiveUp = "'holdfast gc --lost' deletes them"

func (t *Task) collect(ctx context.Context, opts CollectOptions) (CollectResult, left, error) {
	c := &collector{task: t, dryRun: opts.DryRun, lost: opts.Lost}
	if opts.Lost && !opts.DryRun {
		if err := t.giveUp(ctx, opts.Fence); err != nil {
			return CollectResult{}, left{}, err
		}
	}
	_, err := history.Reread(ctx, func() (struct{}, error) { return struct{}{}, c.collect(ctx) })
	return c.done, c.left, err
}

type collector struct {
	task   *Task
	dryRun bool
	lost   bool          // what proves that manifests were lost goes as well
	batch  []string      // keys to be deleted
	counts CollectResult // what they are
	done   CollectResult
	left   left
}

// collect reads the newest manifest first, and lists what there is after it:
// what was made in between is the present writer's, or a later one's.
func (c *collector) collect(ctx context.Context) error {
	c.left = left{}
	if c.dryRun {
		c.done = CollectResult{} // what an attempt that was overtaken has counted, is there still
	}
	s, all, err := c.task.log.NewestAndAll(ctx)
	switch {
	case err != nil:
		return err
	case s == nil && c.dryRun && c.lost:
		return c.collectSegments(ctx, history.None(), account{})
	case s == nil:
		return c.task.wantNew(ctx)
	}
	a, damage := c.task.account(ctx, s.Manifest, all)
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
	return c.collectSegments(ctx, s, a)
}

func (c *collector) collectSegments(ctx context.Context, s *history.Committed, a account) error {
	now := c.task.job.clock()
	var later []format.SegmentID // that prove something if nobody has claimed the task meanwhile
	for o, err := range c.task.segments.All(ctx) {
		if err != nil {
			return err
		}
		id := o.ID
		if a.segments[id] {
			continue
		}
		switch lost := s.Disproves(id, a.writers); {
		case c.lost && (s.Abandoned(id) || c.dryRun && id.Epoch > s.Epoch), !lost && s.Abandoned(id):
			if err := c.add(ctx, o.Key, CollectResult{Segments: 1, Bytes: o.Size}); err != nil {
				return err
			}
		case lost && id.Epoch > s.Epoch:
			later = append(later, id)
		case lost:
			c.left.lost = append(c.left.lost, id)
		case now.Sub(o.ModTime) > FenceWindow:
			c.left.inFlight++
		}
	}
	if err := c.flush(ctx); err != nil {
		return err
	}
	lost, err := c.task.stillLost(ctx, later)
	c.left.lost = append(c.left.lost, lost...)
	return err
}

func (c *collector) collectManifests(ctx context.Context, s *history.Committed, all []format.Retained) error {
	made := map[uint64]time.Time{s.Seq: s.Time} // of what was read
	for _, r := range all {
		made[r.Seq] = r.Time
	}
	dir := c.task.log.Dir
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
		same := needed && history.SameObject(at, o.ModTime)
		switch {
		case found == 0 && (seq != s.Seq || !same): // s is gone, or another: all that it says is in doubt
			return c.task.log.Overtaken(s)
		case same:
			found++
		case !needed && s.Time.Sub(o.ModTime) > FenceWindow:
			if err := c.add(ctx, o.Key, CollectResult{Manifests: 1, Bytes: o.Size}); err != nil {
				return err
			}
		}
	}
	if found == 0 {
		return c.task.log.Overtaken(s)
	}
	if err := c.flush(ctx); err != nil || found == len(made) {
		return err
	}
	late, err := c.task.log.MadeLate(ctx, all)
	if err == nil && len(late) > 0 {
		err = c.task.log.Overtaken(s)
	}
	return err
}

// deleteBatch is how many keys are deleted with one call: what S3 takes in one
// request.
const deleteBatch = 1000

func (c *collector) add(ctx context.Context, key string, what CollectResult) error {
	c.batch = append(c.batch, key)
	c.counts.add(what)
	if len(c.batch) < deleteBatch {
		return nil
	}
	return c.flush(ctx)
}

func (c *collector) flush(ctx context.Context) error {
	keys, counts := c.batch, c.counts
	c.batch, c.counts = nil, CollectResult{}
	if len(keys) > 0 && !c.dryRun {
		if err := c.task.job.store.Delete(ctx, keys...); err != nil {
			return err
		}
	}
	c.done.add(counts)
	return nil
}

func (c *CollectResult) add(more CollectResult) {
	c.Segments += more.Segments
	c.Manifests += more.Manifests
	c.Bytes += more.Bytes
}

// An account is what the manifests say that were read.
type account struct {
	segments map[format.SegmentID]bool  // that they name
	writers  map[uint64]format.WriterID // who made them, and what they name, by epoch
}

// named returns the segments that manifest m and the checkpoints that it lists name.
func (t *Task) named(ctx context.Context, m *format.Manifest, all []format.Retained) (map[format.SegmentID]bool, error) {
	a, err := t.account(ctx, m, all)
	return a.segments, err
}

// account reads the manifests of the checkpoints that manifest m lists, which need not
// be in the store.
func (t *Task) account(ctx context.Context, m *format.Manifest, all []format.Retained) (account, error) {
	a := account{make(map[format.SegmentID]bool), make(map[uint64]format.WriterID)}
	var mu sync.Mutex
	add := func(m *format.Manifest, content *format.Content) {
		mu.Lock()
		defer mu.Unlock()
		a.writers[m.Epoch] = m.Writer
		for _, id := range m.Segments(content) {
			a.segments[id], a.writers[id.Epoch] = true, id.Writer
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(t.job.opts.Requests)
	current := m.Checkpoint
	for _, r := range all {
		group.Go(func() error {
			of := m
			if current == nil || current.Seq != r.Seq {
				var err error
				if of, err = t.log.Commit(ctx, r); err != nil {
					return err
				}
			}
			content, err := t.log.Content(ctx, of.Checkpoint)
			if err == nil {
				add(of, content)
			}
			return err
		})
	}
	add(m, nil)
	if current != nil && current.Epoch != m.Epoch {
		group.Go(func() error { // m repeats it, and does not say who committed it
			commit, err := t.log.Read(ctx, current.Seq)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				a.writers[commit.Epoch] = commit.Writer
			}
			if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) || errors.Is(err, fs.ErrNotExist) {
				err = nil // it is not needed while m repeats it
			}
			return err
		})
	}
	return a, group.Wait()
}
