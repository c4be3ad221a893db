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
	// Fence lets the task be rolled back, or its list be given up, although it is claimed,
	// which fences its owner.
	Fence bool

	// GiveUpList lets a task go on of whose list of checkpoints a part is lost: the current
	// checkpoint is kept, the others that can still be read of the list, and those that are
	// kept for forks. THE REST IS GIVEN UP, savepoints among them. Without a lost part it
	// does nothing.
	GiveUpList bool
}

// RepairResult says what a repair has done.
type RepairResult struct {
	Dropped []uint64 `json:"dropped"` // damaged checkpoints that are not retained any more
	// RolledBackTo is the checkpoint that has become the current one, because the one that
	// was current is damaged; 0 if that is not damaged.
	RolledBackTo uint64 `json:"rolled_back_to"`
	// ListGivenUp says that the checkpoints are given up that only a lost part of the list
	// had. Which these were is not known.
	ListGivenUp bool `json:"list_given_up"`
	// Left are damaged checkpoints that are still retained, such as those that forks need.
	Left      []uint64      `json:"left"`
	Collected CollectResult `json:"collected"` // what was deleted
}

// Repair drops the checkpoints that are damaged, according to a report of [Task.Verify],
// and then collects what nothing needs any more. If the current checkpoint is among them,
// Repair rolls the task back to the newest intact one, as [Task.Rollback] does: what was
// saved since is lost. A report of a verification without VerifyOptions.Data does not know
// about damaged data of files.
//
// Nothing is dropped, and the error wraps ErrCorrupt, if no checkpoint is intact, or if the
// newest manifest or the list of checkpoints cannot be read. The task's owner is not
// disturbed, unless the task is rolled back: that takes a claim, which fences the owner, so
// Repair returns ErrClaimed then for a task that is claimed, unless the options say
// otherwise. If the manifest that committed the current checkpoint is damaged, but the
// newest manifest repeats that checkpoint, Repair keeps it: it can be read for as long as
// it is the current one.
//
// Of a list of which a part is lost, nothing is given up unless the options say so. That
// takes a claim as well, and deletes nothing: what only the checkpoints needed that were
// given up is deleted by the next collection, or after the next claim. It returns ErrHeld if
// a checkpoint that is kept for a fork cannot be read either.
//
// Repair may be called again with the same report. With an error, RepairResult says what
// was done before the error.
func (t *Task) Repair(ctx context.Context, r *VerifyReport, opts RepairOptions) (RepairResult, error) {
	if r == nil {
		return RepairResult{}, backend.Invalidf("task %q cannot be repaired without a report of Verify", t.Name())
	}
	out := RepairResult{Dropped: []uint64{}, Left: slices.Clone(r.Damaged)}
	if r.Task != t.Name() {
		return out, backend.Invalidf("task %q cannot be repaired by a report of task %q", t.Name(), r.Task)
	}
	giveUp := opts.GiveUpList && r.listLost
	if r.blocked != nil && !giveUp {
		return out, r.blocked
	}
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return out, err
	}
	defer end()
	if len(r.drop) == 0 && !giveUp {
		out.Collected, err = t.Collect(ctx, CollectOptions{})
		return out, err
	}
	d := &dropping{task: t, damaged: r.drop, fence: opts.Fence}
	if giveUp {
		err = d.giveUpList(ctx)
	} else {
		err = d.drop(ctx)
	}
	if err != nil {
		return out, err
	}
	for _, c := range d.gone {
		out.Dropped = append(out.Dropped, c.Seq)
	}
	out.RolledBackTo, out.ListGivenUp = d.back, d.gaveUp
	out.Left = slices.DeleteFunc(out.Left, func(seq uint64) bool { return slices.Contains(r.drop, seq) && !d.held.Has(seq) })
	if d.gaveUp { // what is needed only by checkpoints that nobody knows of cannot be told from garbage
		return out, nil
	}
	_, out.Collected, err = t.deleteDropped(ctx, d.gone, d.list)
	return out, err
}

// errCurrentDamaged means that the task must be rolled back, which no amendment can do.
var errCurrentDamaged = errors.New("the current checkpoint is damaged")

// errCurrentIntact means that a later commit has taken the place of the damaged one.
var errCurrentIntact = errors.New("the current checkpoint is intact")

// errDropped means that there is nothing to drop, or that it is dropped already.
var errDropped = errors.New("dropped")

// A dropping makes a task retain damaged checkpoints no more.
type dropping struct {
	task    *Task
	damaged []uint64
	fence   bool

	held format.Holds       // what is held for forks: it is not dropped
	gone []format.Retained  // those that the task had
	list []format.SegmentID // the segments of the list that had them
	back uint64             // the checkpoint that the task was rolled back to, or 0

	gaveUp bool // a part of the list was lost, and is not in it any more
}

func (d *dropping) drop(ctx context.Context) error {
	err := d.task.log.Amend(ctx, func(base *history.Committed, all []format.Retained, _ bool) ([]format.Retained, error) {
		d.list = append(d.list, base.ListSegments()...)
		kept, err := d.without(base, all)
		if err != nil {
			return nil, err
		}
		if kept[0].Seq != all[0].Seq {
			return nil, errCurrentDamaged
		}
		d.gone = history.Dropped(all, kept)
		return kept, nil
	})
	if errors.Is(err, errCurrentDamaged) {
		err = d.rollBack(ctx)
	}
	switch {
	case errors.Is(err, errCurrentIntact) && !errors.Is(err, ErrUnknown): // by now: no claim is needed
		d.forget()
		return d.drop(ctx)
	case errors.Is(err, errDropped), errors.Is(err, ErrNoCheckpoint):
		return nil
	}
	return err
}

// forget forgets what attempts were to do that lost to another writer.
func (d *dropping) forget() { d.gone, d.back = nil, 0 }

// without returns the list of base's checkpoints without the damaged ones, but for those
// that forks need. The first of the list is intact. It returns errDropped if nothing is to
// be done any more, because an earlier attempt or someone else has done it.
func (d *dropping) without(base *history.Committed, all []format.Retained) ([]format.Retained, error) {
	kept, err := d.intactFirst(base, all)
	if err == nil && kept[0].Seq == all[0].Seq && len(kept) == len(all) {
		err = errDropped
	}
	return kept, err
}

// intactFirst is without, also if nothing is to be done.
func (d *dropping) intactFirst(base *history.Committed, all []format.Retained) ([]format.Retained, error) {
	d.held = base.Held
	damaged := func(c format.Retained) bool { return slices.Contains(d.damaged, c.Seq) }
	kept := slices.DeleteFunc(slices.Clone(all), func(c format.Retained) bool { return damaged(c) && !d.held.Has(c.Seq) })
	first := slices.IndexFunc(kept, func(c format.Retained) bool { return !damaged(c) })
	if first < 0 {
		return nil, fmt.Errorf("task %q: none of its checkpoints is intact, so that there is none to go back to: %w", d.task.Name(), ErrCorrupt)
	}
	intact := kept[first]
	return slices.Insert(slices.Delete(kept, first, first+1), 0, intact), nil
}

// rollBack makes the newest checkpoint that is not damaged the current one, in place of the
// damaged one, which takes a claim.
func (d *dropping) rollBack(ctx context.Context) error {
	t := d.task
	_, err := t.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		if base.Current() == nil { // it was deleted meanwhile
			return nil, errDropped
		}
		all, err := t.log.All(ctx, base)
		if err != nil {
			return nil, err
		}
		kept, err := d.without(base, all)
		if err != nil {
			return nil, err
		}
		if kept[0].Seq == all[0].Seq {
			return nil, errCurrentIntact
		}
		if err := t.mayFence(base, d.fence); err != nil {
			return nil, err
		}
		m, err := d.manifest(ctx, base, all, kept)
		if err == nil {
			_, err = t.retain(ctx, m, base, base.Rest(all), m.Others(kept), 0)
		}
		return m, err
	})
	return err
}

// manifest returns the claim after base that makes the first of kept the current checkpoint,
// without a list.
func (d *dropping) manifest(ctx context.Context, base *history.Committed, all, kept []format.Retained) (*format.Manifest, error) {
	d.gone, d.back = history.Dropped(all, kept), 0
	m := d.task.log.Follow(base, format.KindClaim, history.SegmentsFirst)
	m.Released = true
	if kept[0].Seq != all[0].Seq {
		committed, err := d.task.log.FindCommit(ctx, kept[0])
		if err != nil {
			return nil, err
		}
		m.Checkpoint, d.back = committed.Checkpoint, kept[0].Seq
	}
	m.KeepSource(kept)
	return m, nil
}
