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

	// Lost also deletes segments that prove that manifests were lost, and segments that a
	// save which is under way, or was killed, has left. To make sure that nobody can name
	// these any more, the task is claimed and released first, unless all of them are of
	// earlier epochs. That fences whoever owns the task, and any save under way.
	Lost bool
	// Fence allows that claim although the task is claimed by somebody else.
	Fence bool
}

// CollectResult counts what a collection deleted, or would have deleted.
type CollectResult struct {
	Segments  int   `json:"segments"`
	Manifests int   `json:"manifests"`
	Bytes     int64 `json:"bytes"` // of segments and manifests together

	// Deleted says that the task was deleted, and not claimed since. Only Collect and Delete
	// set it.
	Deleted bool `json:"-"`
}

// left describes the segments that a collection did not delete although no manifest in the
// store names them.
type left struct {
	// inFlight counts those that a save or a commit may yet name, but that were sent
	// longer ago than the fence window. It is for a log message alone, so the machine's
	// clock is good enough for it.
	inFlight int
	lost     []format.SegmentID // those that prove that manifests were lost
	held     format.Holds       // checkpoints that are kept for forks
	deleted  bool               // the task was deleted
}

// Collect deletes what no retained checkpoint needs: what killed processes and
// failed clean-ups have left behind, and manifests that are superseded. Anyone may collect
// at any time, beside owners, saves and readers. It fences no one. If it is interrupted,
// the next collection deletes the rest.
//
// A segment is deleted only if its epoch and writer show that no one can name it any more,
// and never because of its age. A manifest is deleted when it is older than the newest one
// by more than the fence window, by the store's clock.
//
// What the task keeps for forks that need it no more is kept no longer. A fork that was
// never made, because its maker was killed, counts as one of these after the fence window:
// Collect takes its place with a manifest which says that it was deleted. With Lost, so
// does a fork whose manifests someone has deleted.
//
// If a retained checkpoint is damaged, it may need segments that nobody knows
// of. Then no segment is deleted, and the error wraps ErrCorrupt.
//
// Unless the options say otherwise, Collect leaves segments that prove that manifests were
// lost, and logs that to Options.Logger. It also leaves segments that a save or a commit
// may yet name, and logs those that are older than the fence window. If there is no
// manifest at all, but there are such segments, the error wraps ErrLost. With Lost, it
// returns ErrClaimed if it would have to fence an owner and Fence is not set.
func (t *Task) Collect(ctx context.Context, opts CollectOptions) (CollectResult, error) {
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return CollectResult{}, err
	}
	defer end()
	done, left, err := t.collect(ctx, opts)
	left.tell(ctx, t)
	done.Deleted = left.deleted
	if err == nil && !opts.DryRun && len(left.held) > 0 {
		err = t.dropNeedlessHolds(ctx, left.held, opts.Lost)
	}
	return done, err
}

// tell logs what was left.
func (l *left) tell(ctx context.Context, t *Task) {
	log := t.job.opts.Logger.With("task", t.Name())
	if n := len(l.lost); n > 0 {
		log.WarnContext(ctx, "manifests were lost: segments that prove it were left ("+howToGiveUp+")", "segments", n)
	}
	if l.inFlight > 0 {
		log.InfoContext(ctx, "segments were left that were sent more than an hour ago, and that a save or a commit may yet name: "+
			"that is slow, or it was killed, or its manifest was lost", "segments", l.inFlight)
	}
}

// howToGiveUp tells the user how to delete segments that prove that manifests were lost.
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
	// dropped are the segments of checkpoints that are not retained any more: those that no
	// other needs are deleted, whoever stored them.
	dropped map[format.SegmentID]bool
	freed   CollectResult // of these
	// outdated are the segments of a list that was the newest one: those that the newest does
	// not need are deleted likewise.
	outdated map[format.SegmentID]bool
	lost     bool          // CollectOptions.Lost
	batch    []string      // keys to be deleted with the next call
	counts   CollectResult // of what is in batch
	done     CollectResult
	left     left
}

// collect reads the newest manifest first, and lists the segments after that. So a segment
// that was made in between is the present writer's, or a later one's, and is left alone.
func (c *collector) collect(ctx context.Context) error {
	c.left = left{}
	if c.dryRun {
		c.done = CollectResult{} // an earlier attempt has deleted nothing, so it counts nothing
	}
	s, all, err := c.task.log.NewestAndAll(ctx)
	switch {
	case err != nil:
		return err
	case s == nil && c.dryRun && c.lost:
		return c.collectSegments(ctx, history.None(), account{})
	case s == nil:
		return c.task.requireNew(ctx)
	}
	c.left.held, c.left.deleted = s.Held, s.Kind == format.KindDeleted
	a, damage := c.task.account(ctx, s.Manifest, all)
	if damage != nil && !errors.Is(damage, ErrCorrupt) && !errors.Is(damage, ErrVersion) {
		return damage
	}
	// The manifests come first: listing them shows whether a late manifest was read.
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
	var later []format.SegmentID // they prove a loss, unless somebody has claimed the task meanwhile
	for o, err := range c.task.segments.All(ctx) {
		if err != nil {
			return err
		}
		id := o.ID
		if a.segments[id] {
			continue
		}
		one := CollectResult{Segments: 1, Bytes: o.Size}
		if c.dropped[id] {
			c.freed.add(one)
		}
		switch lost := s.Disproves(id, a.writers); {
		case c.dropped[id], c.outdated[id], c.lost && (s.Abandoned(id) || c.dryRun && id.Epoch > s.Epoch), !lost && s.Abandoned(id):
			if err := c.add(ctx, o.Key, one); err != nil {
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
	made := map[uint64]time.Time{s.Seq: s.Time} // by number: the times of the manifests that were read
	for _, r := range all {
		made[r.Seq] = r.Time
	}
	dir := c.task.log.Dir
	young := false                            // there is a manifest that nothing needs and that may not be deleted yet
	found := 0                                // how many of those are in the listing
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
		case found == 0 && (seq != s.Seq || !same): // s was deleted, or replaced by a late manifest: start over
			return c.task.log.Overtaken(s)
		case same:
			found++
		case !needed && s.Time.Sub(o.ModTime) > FenceWindow:
			if err := c.add(ctx, o.Key, CollectResult{Manifests: 1, Bytes: o.Size}); err != nil {
				return err
			}
		default:
			young = young || !needed
		}
	}
	if found == 0 {
		return c.task.log.Overtaken(s)
	}
	if err := c.flush(ctx); err != nil {
		return err
	}
	if s.Kind == format.KindDeleted && !c.dryRun {
		if err := c.task.collectRecords(ctx, s); err != nil {
			return err
		}
	}
	if young && s.Kind == format.KindDeleted {
		return c.deleteLater(ctx, s)
	}
	if found == len(made) {
		return nil
	}
	late, err := c.task.log.MadeLate(ctx, all)
	if err == nil && len(late) > 0 {
		err = c.task.log.Overtaken(s)
	}
	return err
}

// deleteLater makes another manifest of kind "deleted" after s, so that the store's time
// goes on: what was young when the task was deleted may be deleted then. It does so only
// when that is the case, and returns ErrGone to start over from there.
func (c *collector) deleteLater(ctx context.Context, s *history.Committed) error {
	if c.dryRun || c.task.job.clock().Sub(s.Time) <= FenceWindow+FenceWindow/2 {
		return nil
	}
	if _, err := c.task.log.AppendOnce(ctx, c.task.deletion(s), true); err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, history.ErrTaken) {
		return err
	}
	return c.task.log.Overtaken(s)
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

// An account sums up the manifests that were read.
type account struct {
	segments map[format.SegmentID]bool  // the segments that they name
	writers  map[uint64]format.WriterID // by epoch: who wrote the manifests and these segments
}

// named returns the segments that manifest m and the checkpoints that it lists name.
func (t *Task) named(ctx context.Context, m *format.Manifest, all []format.Retained) (map[format.SegmentID]bool, error) {
	a, err := t.account(ctx, m, all)
	return a.segments, err
}

// account reads the manifests of the checkpoints that manifest m lists, which need not
// be in the store. m's list was read. The lists of the other manifests are not in the
// account, because nobody needs them.
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
	add(m, nil)
	for _, id := range m.ListSegments() {
		a.segments[id], a.writers[id.Epoch] = true, id.Writer
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(t.job.opts.Requests)
	current := m.Checkpoint
	for _, r := range all {
		group.Go(func() error {
			of := m
			if current == nil || current.Seq != r.Seq {
				var err error
				if of, err = t.log.FindCommit(ctx, r); err != nil {
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
	if current != nil && current.Epoch != m.Epoch {
		group.Go(func() error { // m repeats the checkpoint, and does not say who committed it
			commit, err := t.log.Read(ctx, current.Seq)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				a.writers[commit.Epoch] = commit.Writer
			}
			if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) || errors.Is(err, fs.ErrNotExist) {
				err = nil // that manifest is not needed while m repeats its checkpoint
			}
			return err
		})
	}
	return a, group.Wait()
}
