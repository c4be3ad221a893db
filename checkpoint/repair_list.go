package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// This file repairs a task that has lost a part of its list of checkpoints. Nobody can save to
// it, because nobody knows which checkpoints exist. What can still be read is a part of the
// list, and any manifest may drop the others.

// giveUpList makes the task retain only the checkpoints that can still be read of its list,
// and those that forks need, without the damaged ones. It does nothing if the list is whole
// by now. It takes a claim, because an amendment cannot store a new list.
func (d *dropping) giveUpList(ctx context.Context) error {
	_, err := d.task.log.Claim(ctx, func(base *history.Committed) (*format.Manifest, error) {
		all, lost, err := d.task.log.Salvage(ctx, base)
		if err != nil {
			return nil, err
		}
		if d.gaveUp = false; len(lost) == 0 {
			return nil, errDropped
		}
		if err := d.task.mayFence(base, d.fence); err != nil {
			return nil, err
		}
		return d.withoutLost(ctx, base, all)
	})
	if errors.Is(err, errDropped) && !errors.Is(err, ErrUnknown) {
		d.forget()
		return d.drop(ctx)
	}
	return err
}

// withoutLost returns the claim after base that retains what is left of its list, which is
// all, and what is held for forks. Its list is stored anew.
func (d *dropping) withoutLost(ctx context.Context, base *history.Committed, all []format.Retained) (*format.Manifest, error) {
	held, missing, err := d.holds(ctx, base, all)
	if err != nil {
		return nil, err
	}
	m := *base.Manifest
	m.Held = held
	base = &history.Committed{Manifest: &m, Time: base.Time}
	for _, r := range missing {
		all = format.InsertBySeq(all, r)
	}
	kept, err := d.intactFirst(base, all)
	if err != nil {
		return nil, err
	}
	next, err := d.manifest(ctx, base, all, kept)
	if err == nil {
		_, err = d.task.retain(ctx, next, nil, nil, next.Others(kept), 0)
	}
	d.gaveUp = err == nil
	return next, err
}

// holds returns what is to be held for forks, and the checkpoints of these that are missing
// in all, which is what is left of base's list. What is held is certain to be in the list, so
// the manifest that committed it is there. If that cannot be read, the fork must not need it.
func (d *dropping) holds(ctx context.Context, base *history.Committed, all []format.Retained) (held format.Holds, missing []format.Retained, err error) {
	has := func(list []format.Retained, seq uint64) bool {
		return slices.ContainsFunc(list, func(r format.Retained) bool { return r.Seq == seq })
	}
	for _, h := range base.Held {
		if has(all, h.Seq) || has(missing, h.Seq) {
			held = append(held, h)
			continue
		}
		r, err := d.task.log.Relist(ctx, h.Seq)
		switch {
		case err == nil:
			sameName := func(o format.Retained) bool { return o.Savepoint == r.Savepoint }
			if slices.ContainsFunc(all, sameName) || slices.ContainsFunc(missing, sameName) {
				r.Savepoint, r.ExpiresAfter = "", 0 // it was renamed since, or is no savepoint any more
			}
			held, missing = append(held, h), append(missing, r)
			continue
		case !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist):
			return nil, nil, err
		}
		needed, nerr := d.task.isNeeded(ctx, h, false, false)
		if nerr != nil {
			return nil, nil, nerr
		}
		if needed {
			return nil, nil, fmt.Errorf("task %q: %w: %q (checkpoint %d), and that checkpoint cannot be read: %v; bring it back, or delete or detach the fork first",
				d.task.Name(), ErrHeld, h.Task, h.Seq, err) //nolint:errorlint // its kind is not that of this error
		}
	}
	return held, missing, nil
}
