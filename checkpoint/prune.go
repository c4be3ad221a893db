package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// PruneOptions say how a task is pruned. The zero value is a good choice.
type PruneOptions struct {
	// DryRun changes nothing, and only finds out what would be done.
	DryRun bool
	// Fence prunes the task although it is claimed, which fences its owner.
	Fence bool
}

// PruneResult says what became of a task's checkpoints, or what would.
type PruneResult struct {
	// Checkpoints are all that there were, in the order of [Task.Checkpoints].
	Checkpoints []Verdict
	// Segments is how many of them only those need which go, and Bytes what is
	// in them. Those of a checkpoint that cannot be read are not known.
	Segments int
	Bytes    int64
}

// A Verdict says why a checkpoint stays, or that it goes.
type Verdict struct {
	Seq       uint64    `json:"seq"`
	Time      time.Time `json:"time"`      // of its commit, by the store's clock
	Savepoint string    `json:"savepoint"` // its name, or ""

	// KeptBy names what keeps it: "current", "savepoint", "last", "within",
	// "hourly", "daily", "weekly", "monthly". If nothing does, it goes.
	KeptBy []string `json:"kept_by"`
}

// Removed reports whether the checkpoint goes.
func (v *Verdict) Removed() bool { return len(v.KeptBy) == 0 }

// Prune applies a policy to the checkpoints of a task that has no long-running
// owner: those which it does not keep are gone when Prune returns nil, and then
// what nothing needs any more is deleted. The current checkpoint stays. It is
// for once; what later commits keep is for their own policies to say.
//
// That is a claim and a release in one manifest, unless nothing goes. It fences
// whoever owns the task, so a task that is claimed is refused with ErrClaimed
// unless the options say otherwise. A failure to delete is logged and fails
// nothing: [Task.Collect] does it later. Prune returns ErrNoCheckpoint if there
// is no checkpoint. After ErrUnknown the task may have been pruned, or may yet
// be; after any other error it was not.
func (t *Task) Prune(ctx context.Context, keep Retention, opts PruneOptions) (PruneResult, error) {
	if err := keep.check(); err != nil {
		return PruneResult{}, err
	}
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return PruneResult{}, err
	}
	defer end()
	if opts.DryRun {
		return history.Reread(ctx, func() (PruneResult, error) { return t.pruneNothing(ctx, keep) })
	}
	return t.prune(ctx, keep, opts.Fence)
}

// A pruning is what a policy makes of the checkpoints that there are.
type pruning struct {
	verdicts   []Verdict
	kept, gone []format.Retained
}

// prune returns what r makes of all checkpoints, of which there is at least the
// current one, by what the machine's clock says as well.
func (r Retention) prune(all []format.Retained, machine time.Time) *pruning {
	p := &pruning{verdicts: make([]Verdict, len(all))}
	all, now := reckon(all, machine)
	for i, reasons := range r.orDefault().reasons(all, now) {
		c, why := all[i], []string{}
		if i == 0 {
			why = append(why, "current")
		}
		why = append(why, reasons...)
		p.verdicts[i] = Verdict{Seq: c.Seq, Time: c.Time.UTC(), Savepoint: c.Savepoint, KeptBy: why}
		if p.verdicts[i].Removed() {
			p.gone = append(p.gone, c)
		} else {
			p.kept = append(p.kept, c)
		}
	}
	return p
}

// done reports whether none of what was to go is among all checkpoints.
func (p *pruning) done(all []format.Retained) bool {
	return len(history.Dropped(p.gone, all)) == len(p.gone)
}

// errPruned means that there is nothing to drop, or that it is dropped already.
var errPruned = errors.New("pruned")

func (t *Task) prune(ctx context.Context, keep Retention, fence bool) (PruneResult, error) {
	var p *pruning
	_, err := t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		all, err := t.toPrune(ctx, base)
		if err != nil {
			return nil, err
		}
		if p != nil && p.done(all) {
			return nil, errPruned // by an attempt that another writer has gone on from
		}
		if p = keep.prune(all, t.job.clock()); len(p.gone) == 0 {
			return nil, errPruned
		}
		if base.Claimed() && !fence {
			return nil, fmt.Errorf("task %q (epoch %d, writer %s): %w", t.Name(), base.Epoch, base.Writer, ErrClaimed)
		}
		m := t.log.Follow(base, format.KindClaim, history.SegmentsFirst)
		m.Released = true
		_, err = t.retain(ctx, m, m.Others(p.kept))
		return m, err
	})
	if err != nil && !errors.Is(err, errPruned) {
		return PruneResult{}, err
	}
	out := PruneResult{Checkpoints: p.verdicts}
	if len(p.gone) == 0 {
		return out, nil
	}
	if err := t.tidy(ctx, p, &out); err != nil {
		t.job.opts.Logger.WarnContext(ctx, "not all that only the dropped checkpoints needed is deleted; the next collection does it",
			"task", t.Name(), "err", err)
	}
	return out, nil
}

// toPrune lists the checkpoints of the last step.
func (t *Task) toPrune(ctx context.Context, last *history.Committed) ([]format.Retained, error) {
	if last.Current() == nil {
		return nil, fmt.Errorf("task %q has no checkpoint: %w", t.Name(), ErrNoCheckpoint)
	}
	return t.log.All(ctx, last)
}

// tidy deletes what only those needed that are gone, and says how much that is.
func (t *Task) tidy(ctx context.Context, p *pruning, out *PruneResult) error {
	counted := t.countGone(ctx, p.gone, out)
	if _, err := t.Collect(ctx, CollectOptions{}); err != nil {
		return err
	}
	return counted
}

func (t *Task) countGone(ctx context.Context, gone []format.Retained, out *PruneResult) error {
	_, err := history.Reread(ctx, func() (*history.Committed, error) {
		s, all, err := t.log.NewestAndAll(ctx)
		if err != nil {
			return nil, err
		}
		return s, t.count(ctx, s.Manifest, all, gone, out)
	})
	return err
}

// pruneNothing is prune without its effects.
func (t *Task) pruneNothing(ctx context.Context, keep Retention) (PruneResult, error) {
	base, err := t.log.Newest(ctx)
	if err != nil {
		return PruneResult{}, err
	}
	all, err := t.toPrune(ctx, base)
	if err != nil {
		return PruneResult{}, err
	}
	p := keep.prune(all, t.job.clock())
	out := PruneResult{Checkpoints: p.verdicts}
	if len(p.gone) == 0 {
		return out, nil
	}
	m := t.log.Follow(base, format.KindClaim, history.SegmentsFirst)
	m.Retained, m.RetainedAt = nil, nil // wherever it would be, it would be new
	switch err := t.count(ctx, m, p.kept, p.gone, &out); {
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrVersion):
		t.job.opts.Logger.WarnContext(ctx, "a checkpoint that stays cannot be read, so nothing would be deleted yet", "task", t.Name(), "err", err)
	case err != nil:
		return PruneResult{}, err
	}
	return out, nil
}

// count counts the segments that the checkpoints in gone need, and neither manifest
// m nor those in kept.
func (t *Task) count(ctx context.Context, m *format.Manifest, kept, gone []format.Retained, out *PruneResult) error {
	needed, err := t.named(ctx, m, kept)
	if err != nil {
		return err
	}
	needless, err := t.namedIfReadable(ctx, gone)
	if err != nil {
		return err
	}
	var segments int
	var bytes int64
	for o, err := range t.segments.All(ctx) {
		if err != nil {
			return err
		}
		if needless[o.ID] && !needed[o.ID] {
			segments++
			bytes += o.Size
		}
	}
	out.Segments, out.Bytes = segments, bytes
	return nil
}

// namedIfReadable returns the segments that the checkpoints of a list name, as
// far as that can still be known.
func (t *Task) namedIfReadable(ctx context.Context, list []format.Retained) (map[format.SegmentID]bool, error) {
	named := make(map[format.SegmentID]bool)
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(t.job.opts.Requests)
	for _, r := range list {
		group.Go(func() error {
			ids, err := t.named(ctx, new(format.Manifest), []format.Retained{r})
			if unreadable(err) || errors.Is(err, ErrVersion) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(named, ids)
			return err
		})
	}
	return named, group.Wait()
}
