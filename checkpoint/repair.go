package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// RepairOptions say what a repair may do. The zero value is a good choice.
type RepairOptions struct {
	// Fence repairs the task although it is claimed, which fences its owner.
	Fence bool
}

// RepairResult says what a repair has done.
type RepairResult struct {
	Dropped []uint64 `json:"dropped"` // damaged checkpoints that are not retained any more
	// RolledBackTo is the checkpoint that is the current one now, because that one was
	// damaged; 0 if it was not.
	RolledBackTo uint64 `json:"rolled_back_to"`
	// Left are damaged checkpoints that are still retained.
	Left      []uint64      `json:"left"`
	Collected CollectResult `json:"collected"` // what was deleted
}

// Repair drops the checkpoints that a report of the task says are damaged, and then
// collects what nothing needs any more. If the current checkpoint is among them, the
// task goes back to the newest one that is intact, as [Task.Rollback] does: what was
// saved since is lost. What a report without Data takes for intact may still have
// damaged data.
//
// Nothing is dropped if none is intact, or if the newest manifest, or the list of
// checkpoints, cannot be read: the error wraps ErrCorrupt. Dropping is a claim,
// and fences whoever owns the task, so a task that is claimed is refused with
// ErrClaimed unless the options say otherwise. A checkpoint that can be read
// only as long as it is the current one is left as it is.
//
// Repair may be repeated: what is done already is not done again. After an
// error, what it says was done was done.
func (t *Task) Repair(ctx context.Context, r *VerifyReport, opts RepairOptions) (RepairResult, error) {
	out := RepairResult{Dropped: []uint64{}, Left: slices.Clone(r.Damaged)}
	if r.Task != t.Name() {
		return out, backend.Invalidf("task %q cannot be repaired by a report of task %q", t.Name(), r.Task)
	}
	if r.blocked != nil {
		return out, r.blocked
	}
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return out, err
	}
	defer end()
	if len(r.drop) > 0 {
		done, err := t.drop(ctx, r.drop, opts.Fence)
		if err != nil {
			return out, err
		}
		out.Dropped, out.RolledBackTo = append(out.Dropped, done.Dropped...), done.RolledBackTo
		out.Left = slices.DeleteFunc(out.Left, func(seq uint64) bool { return slices.Contains(r.drop, seq) })
	}
	out.Collected, err = t.Collect(ctx, CollectOptions{})
	return out, err
}

// errNothingToDrop means that it is dropped already.
var errNothingToDrop = errors.New("nothing to drop")

// drop commits a manifest that does not retain damaged checkpoints any more.
func (t *Task) drop(ctx context.Context, damaged []uint64, fence bool) (out RepairResult, err error) {
	_, err = t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		all, err := t.log.All(ctx, base)
		if err != nil {
			return nil, err
		}
		kept := slices.DeleteFunc(slices.Clone(all), func(c format.Retained) bool { return slices.Contains(damaged, c.Seq) })
		switch {
		case len(kept) == len(all):
			return nil, errNothingToDrop // by an attempt that another writer has gone on from, or by someone else
		case len(kept) == 0:
			return nil, fmt.Errorf("task %q: none of its checkpoints is intact, so that there is none to go back to: %w", t.Name(), ErrCorrupt)
		case base.Claimed() && !fence:
			return nil, fmt.Errorf("task %q (epoch %d, writer %s): %w", t.Name(), base.Epoch, base.Writer, ErrClaimed)
		}
		out = RepairResult{}
		for _, c := range history.Dropped(all, kept) {
			out.Dropped = append(out.Dropped, c.Seq)
		}
		m := t.log.Follow(base, format.KindClaim, history.SegmentsFirst)
		m.Released = true
		if kept[0].Seq != all[0].Seq {
			back, err := t.log.Commit(ctx, kept[0])
			if err != nil {
				return nil, err
			}
			m.Checkpoint, out.RolledBackTo = back.Checkpoint, kept[0].Seq
		}
		_, err = t.retain(ctx, m, m.Others(kept))
		return m, err
	})
	if errors.Is(err, errNothingToDrop) {
		return out, nil
	}
	return out, err
}
