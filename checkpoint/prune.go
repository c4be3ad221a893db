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
}

// PruneResult says which checkpoints a pruning kept and which it removed, or would have.
type PruneResult struct {
	// Checkpoints are all that there were, in the order of [Task.List].
	Checkpoints []Verdict
	// Segments is how many segments only the removed checkpoints need, and Bytes their
	// size. A checkpoint that cannot be read is not counted: its segments are not known.
	Segments int
	Bytes    int64
}

// A Verdict says why a checkpoint is kept, or that it is removed.
type Verdict struct {
	Seq       uint64    `json:"seq"`
	Time      time.Time `json:"time"`      // of its commit, by the store's clock
	Savepoint string    `json:"savepoint"` // its name, or ""

	// KeptBy names what keeps it: "current", "savepoint", "fork", "last", "within",
	// "hourly", "daily", "weekly", "monthly". If it is empty, the checkpoint is removed.
	KeptBy []string `json:"kept_by"`
}

// Removed reports whether the checkpoint is removed.
func (v *Verdict) Removed() bool { return len(v.KeptBy) == 0 }

// Prune applies a policy to the checkpoints of a task: those which it does not keep are
// not retained any more when Prune returns nil, and then what nothing needs any more is
// deleted. The current checkpoint stays. It is for once; what later commits keep is for
// their own policies to say. The task's owner, if it has one, is not disturbed: its next
// commit goes on from there.
//
// A failure to delete is logged and fails nothing: the owner deletes it with its next
// commit or, if the task is released, [Task.Collect] does. Prune returns ErrNoCheckpoint
// if there is no checkpoint. After ErrUnknown the task may have been pruned, or may yet
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
	return t.prune(ctx, keep)
}

// A pruning divides the checkpoints that exist into those that a policy keeps and those
// that it drops.
type pruning struct {
	verdicts      []Verdict
	kept, dropped []format.Retained
}

// prune applies r to all checkpoints. all has at least the current one; machine is the
// time of the machine's clock, and held is what is held for forks.
func (r Retention) prune(all []format.Retained, machine time.Time, held format.Holds) *pruning {
	p := &pruning{verdicts: make([]Verdict, len(all))}
	all, now := correctTimes(all, machine)
	for i, reasons := range r.orDefault().reasons(all, now, held) {
		c, why := all[i], []string{}
		if i == 0 {
			why = append(why, "current")
		}
		why = append(why, reasons...)
		p.verdicts[i] = Verdict{Seq: c.Seq, Time: c.Time.UTC(), Savepoint: c.Savepoint, KeptBy: why}
		if p.verdicts[i].Removed() {
			p.dropped = append(p.dropped, c)
		} else {
			p.kept = append(p.kept, c)
		}
	}
	return p
}

// done reports whether none of the checkpoints that p drops exists any more.
func (p *pruning) done(all []format.Retained) bool {
	return len(history.Dropped(p.dropped, all)) == len(p.dropped)
}

func (t *Task) prune(ctx context.Context, keep Retention) (PruneResult, error) {
	var p *pruning
	var list []format.SegmentID
	err := t.log.Amend(ctx, func(base *history.Committed, all []format.Retained, again bool) ([]format.Retained, error) {
		list = append(list, base.ListSegments()...)
		if again && p.done(all) {
			return all, nil // by an attempt that another writer has continued from
		}
		if p = keep.prune(all, t.job.clock(), base.Held); len(p.dropped) == 0 {
			return all, nil
		}
		return p.kept, nil
	})
	if err != nil {
		return PruneResult{}, err
	}
	out := PruneResult{Checkpoints: p.verdicts}
	if len(p.dropped) == 0 {
		return out, nil
	}
	freed, _, err := t.deleteDropped(ctx, p.dropped, list)
	out.Segments, out.Bytes = freed.Segments, freed.Bytes
	if err != nil {
		t.job.opts.Logger.WarnContext(ctx, "not all that only the dropped checkpoints needed is deleted; the task's owner does it or, if the task is not claimed, the next 'holdfast gc'",
			"task", t.Name(), "err", err)
	}
	return out, nil
}

// toPrune lists the checkpoints of last, the newest manifest.
func (t *Task) toPrune(ctx context.Context, last *history.Committed) ([]format.Retained, error) {
	if last.Current() == nil {
		return nil, fmt.Errorf("task %q has no checkpoint: %w", t.Name(), ErrNoCheckpoint)
	}
	return t.log.All(ctx, last)
}

// deleteDropped collects garbage after checkpoints were dropped, and with it what only they
// needed, even if the task's present writer has stored it. A collection alone would leave
// that, because it may be of a commit under way. But what a committed checkpoint names is
// not, and a later commit names only what is new, or what the current checkpoint names. The
// same goes for list, the segments of the list that had them: those that the newest manifest
// does not name are deleted.
//
// It returns how much only the dropped checkpoints needed, and all that was deleted.
func (t *Task) deleteDropped(ctx context.Context, dropped []format.Retained, list []format.SegmentID) (freed, all CollectResult, err error) {
	named, err := t.namedIfReadable(ctx, dropped)
	if err != nil {
		return freed, all, err
	}
	c := &collector{task: t, dropped: named, outdated: make(map[format.SegmentID]bool)}
	for _, id := range list {
		c.outdated[id] = true
	}
	_, err = history.Reread(ctx, func() (struct{}, error) { return struct{}{}, c.collect(ctx) })
	c.left.tell(ctx, t)
	return c.freed, c.done, err
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
	p := keep.prune(all, t.job.clock(), base.Held)
	out := PruneResult{Checkpoints: p.verdicts}
	if len(p.dropped) == 0 {
		return out, nil
	}
	m := t.log.Follow(base, format.KindClaim, history.SegmentsFirst)
	freed, err := t.neededOnlyBy(ctx, p.dropped, m, p.kept)
	out.Segments, out.Bytes = freed.Segments, freed.Bytes
	switch {
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrVersion):
		t.job.opts.Logger.WarnContext(ctx, "a checkpoint that is kept cannot be read, so nothing would be deleted yet", "task", t.Name(), "err", err)
	case err != nil:
		return PruneResult{}, err
	}
	return out, nil
}

// neededOnlyBy counts the segments that the checkpoints in dropped need, and neither
// manifest m nor those in kept.
func (t *Task) neededOnlyBy(ctx context.Context, dropped []format.Retained, m *format.Manifest, kept []format.Retained) (freed CollectResult, err error) {
	needed, err := t.named(ctx, m, kept)
	if err != nil {
		return freed, err
	}
	named, err := t.namedIfReadable(ctx, dropped)
	if err != nil {
		return freed, err
	}
	for o, err := range t.segments.All(ctx) {
		if err != nil {
			return freed, err
		}
		if named[o.ID] && !needed[o.ID] {
			freed.add(CollectResult{Segments: 1, Bytes: o.Size})
		}
	}
	return freed, nil
}

// namedIfReadable returns the segments that the checkpoints of a list name. It leaves out
// checkpoints that cannot be read.
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
