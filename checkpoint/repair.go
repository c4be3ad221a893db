package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// RepairOptions say what a repair may do. The zero value is a good choice.
type RepairOptions struct {
	// Fence repairs the task although it is claimed, which fences its owner.
	Fence bool
}

// Repaired says what a repair has done.
type Repaired struct {
	Dropped []uint64 `json:"dropped"` // hurt checkpoints that are not retained any more
	// WentBackTo is the checkpoint that is the current one now, because that was
	// hurt; 0 if it was not.
	WentBackTo uint64 `json:"went_back_to"`
	// Left are hurt checkpoints that are still retained.
	Left      []uint64  `json:"left"`
	Collected Collected `json:"collected"` // what was deleted
}

// Repair drops the checkpoints that the report says are hurt, and then collects
// what nothing needs any more. If the current checkpoint is among them, the task
// goes back to the newest one that is whole, as [Task.Rollback] does: what was
// saved since is lost. What a report without Data takes for whole may still have
// damaged data.
//
// Nothing is dropped if none is whole, or if the newest manifest, or the list of
// checkpoints, can not be read: the error wraps ErrCorrupt. Dropping is a claim,
// and fences whoever owns the task, so a task that is claimed is refused with
// ErrClaimed unless the options say otherwise. A checkpoint that can be read
// only as long as it is the current one is left as it is.
//
// Repair may be repeated: what is done already is not done again. After an
// error, what it says was done was done.
func (r *Report) Repair(ctx context.Context, opts RepairOptions) (Repaired, error) {
	out := Repaired{Dropped: []uint64{}, Left: slices.Clone(r.Hurt)}
	if r.blocked != nil {
		return out, r.blocked
	}
	ctx, end, err := r.task.job.life.begin(ctx)
	if err != nil {
		return out, err
	}
	defer end()
	if len(r.drop) > 0 {
		done, err := r.dropHurt(ctx, opts.Fence)
		if err != nil {
			return out, err
		}
		out.Dropped, out.WentBackTo = append(out.Dropped, done.Dropped...), done.WentBackTo
		out.Left = slices.DeleteFunc(out.Left, func(seq uint64) bool { return slices.Contains(r.drop, seq) })
	}
	out.Collected, err = r.task.Collect(ctx, CollectOptions{})
	return out, err
}

// errNothingToDrop means that it is dropped already.
var errNothingToDrop = errors.New("nothing to drop")

// dropHurt makes the step that drops hurt checkpoints.
func (r *Report) dropHurt(ctx context.Context, fence bool) (out Repaired, err error) {
	t := r.task
	_, err = t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		all, err := t.log.All(ctx, base)
		if err != nil {
			return nil, err
		}
		kept := slices.DeleteFunc(slices.Clone(all), func(c format.Retained) bool { return slices.Contains(r.drop, c.Seq) })
		switch {
		case len(kept) == len(all):
			return nil, errNothingToDrop // by an attempt that another writer has gone on from, or by someone else
		case len(kept) == 0:
			return nil, fmt.Errorf("task %q: none of its checkpoints is whole, so that there is none to go back to: %w", t.Name(), ErrCorrupt)
		case base.Claimed() && !fence:
			return nil, fmt.Errorf("task %q (epoch %d, writer %s): %w", t.Name(), base.Epoch, base.Writer, ErrClaimed)
		}
		out = Repaired{}
		for _, gone := range history.Dropped(all, kept) {
			out.Dropped = append(out.Dropped, gone.Seq)
		}
		m := t.log.Follow(base, format.KindClaim, history.SegmentsFirst)
		m.Released = true
		if kept[0].Seq != all[0].Seq {
			back, err := t.log.Commit(ctx, kept[0])
			if err != nil {
				return nil, err
			}
			m.Checkpoint, out.WentBackTo = back.Checkpoint, kept[0].Seq
		}
		_, err = t.retain(ctx, m, m.Others(kept))
		return m, err
	})
	if errors.Is(err, errNothingToDrop) {
		return out, nil
	}
	return out, err
}
