package runner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// Restored is what a task goes on from.
type Restored struct {
	// Checkpoint is the one that was restored, or nil if the task has none yet.
	Checkpoint *checkpoint.Checkpoint

	// Cuts is an empty directory for what the state is cut into, on the same file
	// system as the stores. What is left in it is removed before the next Open. Of
	// several engines each needs a directory of its own in it.
	Cuts string

	dir    *runDir
	place  *place // nil for none
	isNew  map[string]bool
	starts *starts
}

// Dir returns the directory of a store: what the checkpoint has of it, or empty if
// it is new. The name is one of Spec.Stores; "" if there are none.
func (r *Restored) Dir(store string) string {
	if r.place != nil {
		return r.place.path
	}
	return r.dir.store(store)
}

// Aside returns where what was in Spec.State before was moved to: see [StateDir]. It is "" if
// nothing was moved.
func (r *Restored) Aside() string {
	if r.place == nil {
		return ""
	}
	return r.place.moved
}

// IsNew reports whether the checkpoint lacks a store, or there is no checkpoint.
func (r *Restored) IsNew(store string) bool { return r.isNew[store] }

// Start returns where to begin to read an input partition: where an operator's startpoint
// says, or else at the checkpoint's offset, or as Spec.Inputs says if there is none. A partition that Inputs does not
// name has the rules of the zero Input.
func (r *Restored) Start(partition string) (Start, error) { return r.starts.start(partition) }

// OutOfRange returns where to begin to read an input partition that no longer has
// the offset from which it was to be read.
func (r *Restored) OutOfRange(partition string) (Start, error) {
	return r.starts.outOfRange(partition)
}

// start claims, restores and opens the task, and lets it run. After an error all
// is closed.
func (t *Task) start(ctx context.Context) error {
	ctx, span := t.runner.telemetry.begin(ctx, "holdfast.own", t.name)
	err := t.open(ctx)
	span(err)
	if err == nil && t.begin() {
		t.log.InfoContext(ctx, "owned", "epoch", t.owner.Epoch(), "checkpoint", t.seq)
		go t.loop() // from here on, what is its own must not be touched
		return nil
	}
	if t.ctx.Err() != nil { // it was drained meanwhile, say
		err = errors.Join(context.Cause(t.ctx), err)
	}
	t.finishWith(err, false)
	t.giveUp(err)
	if t.cutter != nil {
		err = errors.Join(err, guard("close", t.cutter.Close))
	}
	if t.owner != nil {
		t.disclaim(ctx)
	}
	t.shut(nil)
	return errors.Join(err, t.closed)
}

// disclaim releases a task that was claimed and not opened, so that it is not claimed by
// nobody. If that fails, the next owner fences this one, as after a crash.
func (t *Task) disclaim(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	t.stopHeart()
	if err := t.owner.Release(ctx); err != nil && !errors.Is(err, checkpoint.ErrFenced) {
		t.log.WarnContext(ctx, "the task stays claimed, though it could not be opened", "err", err)
	}
}

// begin gives the task its schedule, unless it has been stopped meanwhile.
func (t *Task) begin() bool {
	t.runner.mu.Lock()
	opts := t.runner.opts
	opts.Interval = t.runner.interval
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.runner.mu.Unlock()
	t.schedule = newSchedule(t.name, t.owner.Epoch(), &opts, time.Now())
	return t.ctx.Err() == nil
}

// open does all that comes before the loop, in this order: the directory is locked
// before the claim, so that a second process on this host fences nobody, and swept
// after it.
func (t *Task) open(ctx context.Context) (err error) {
	if t.standby != nil {
		defer t.standby.finish() // before the directory is unlocked
	}
	if err := t.lockDir(); err != nil {
		return err
	}
	if t.spec.State != nil {
		if t.place, err = t.dir.takePlace(t.spec.State, t.name); err != nil {
			return err
		}
	}
	if t.owner, err = claim(ctx, t.runner.job, t.name, t.ifEpoch); err != nil {
		return err
	}
	t.startHeart()
	if t.spec.Claimed != nil {
		if err := guard("claimed", func() error { return t.spec.Claimed(t.owner.Epoch()) }); err != nil {
			return err
		}
	}
	if err := t.restore(ctx); err != nil {
		return err
	}
	// A restore may take long.
	if err := settle(ctx, t.owner); err != nil {
		return err
	}
	t.incomplete = t.toComplete(t.restored.Checkpoint)
	if err := t.complete(ctx); err != nil {
		return err
	}
	cutter, err := guarded("open", func() (Cutter, error) { return t.spec.Open(ctx, t.restored) })
	if err != nil {
		return err // what is beside an error may not be used: Engines of one that is nil, say
	}
	if t.cutter = cutter; cutter == nil {
		return backend.Invalidf("Spec.Open returned no Cutter")
	}
	return nil
}

// lockDir locks the run directory, unless a standby has handed it over, locked.
func (t *Task) lockDir() (err error) {
	if t.dir == nil {
		t.dir, err = lockDir(t.spec.Dir)
	}
	return err
}

// restore restores all stores, and the position that belongs to them.
func (t *Task) restore(ctx context.Context) error {
	c, err := newest(ctx, t.owner)
	if err != nil {
		return err
	}
	if t.standby != nil {
		t.warm = t.standby.settle(ctx, c)
	}
	plan, err := t.plan(ctx, c)
	if err != nil {
		return err // before the sweep: what a wrong Spec does not name may be needed by a right one
	}
	if err := t.dir.sweep(t.spec.Stores); err != nil {
		return err
	}
	var inputs map[string]string
	t.covered = time.Now()
	if c != nil {
		inputs, t.seq, t.covered, t.hasState = c.Offsets, c.Seq, c.Time, c.Files > 0
	}
	used, orders, err := loadStartpoints(ctx, t.runner.job, t.name, c)
	if err != nil {
		return err
	}
	t.startpoints, used.before = used, inputs
	starts := newStarts(t.name, t.spec.Inputs, inputs, orders)
	t.offsets = &offsets{at: maps.Clone(starts.offsets), orders: maps.Clone(orders)}
	if t.offsets.at == nil {
		t.offsets.at = make(map[string]string)
	}
	t.restored = &Restored{Checkpoint: c, Cuts: t.dir.cuts(), dir: t.dir, place: t.place, isNew: make(map[string]bool), starts: starts}
	began := time.Now()
	if err := t.restoreAll(ctx, c, plan); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	t.runner.telemetry.restored(ctx, time.Since(began))
	return nil
}

func (t *Task) restoreAll(ctx context.Context, c *checkpoint.Checkpoint, plan []part) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range plan {
		t.restored.isNew[p.store] = p.isNew
		give := func() {}
		if !p.isNew {
			var err error
			// Taken here, one after the other: those of one task come in the plan's order.
			if give, err = t.runner.restores.take(ctx, p.size); err != nil {
				return errors.Join(err, group.Wait())
			}
		}
		group.Go(func() error {
			defer give()
			return t.restoreStore(ctx, c, p)
		})
	}
	return group.Wait()
}

func (t *Task) restoreStore(ctx context.Context, c *checkpoint.Checkpoint, p part) (err error) {
	dir := t.dir.store(p.store)
	switch {
	case p.isNew && t.place != nil:
		return t.place.begun()
	case p.isNew:
		return makeEmpty(dir)
	}
	warm := t.warm != nil && t.warm.SameState(c)
	if warm && t.place == nil {
		return nil // its standby has just restored it
	}
	ctx, span := t.runner.telemetry.begin(ctx, "holdfast.restore", t.name)
	defer func() { span(err) }()
	var progress func(checkpoint.Progress)
	if t.spec.Progress != nil {
		progress = func(now checkpoint.Progress) { t.spec.Progress(p.store, now) }
	}
	do := func() error { return restore(ctx, c, p.store, dir, progress) }
	if t.place != nil {
		return t.place.restored(warm, do)
	}
	return do()
}
