package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	// system as the stores. What is left in it is removed before the next Open.
	Cuts string

	dir    *runDir
	isNew  map[string]bool
	starts *starts
}

// Dir returns the directory of a store: what the checkpoint has of it, or empty if
// it is new. The name is one of Spec.Stores; "" if there are none.
func (r *Restored) Dir(store string) string { return r.dir.store(store) }

// IsNew reports whether the checkpoint lacks a store, or there is no checkpoint.
func (r *Restored) IsNew(store string) bool { return r.isNew[store] }

// Start returns where to begin to read an input partition: at the checkpoint's
// offset, or as Spec.Inputs says if there is none. A partition that Inputs does not
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
		go t.loop()
		t.log.InfoContext(ctx, "owned", "epoch", t.owner.Epoch(), "checkpoint", t.seq)
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
	t.shut(nil)
	return errors.Join(err, t.closed)
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
	if t.dir, err = lockDir(t.spec.Dir); err != nil {
		return err
	}
	if t.owner, err = claim(ctx, t.runner.job, t.name); err != nil {
		return err
	}
	if err := t.restore(ctx); err != nil {
		return err
	}
	// A restore may take long.
	if err := settle(ctx, t.owner); err != nil {
		return err
	}
	t.cutter, err = guarded("open", func() (Cutter, error) { return t.spec.Open(ctx, t.restored) })
	if err == nil && t.cutter == nil {
		err = backend.Invalidf("Spec.Open returned no Cutter")
	}
	return err
}

// restore restores all stores, and the position that belongs to them.
func (t *Task) restore(ctx context.Context) error {
	c, err := newest(ctx, t.owner)
	if err != nil {
		return err
	}
	if err := t.dir.sweep(t.spec.Stores); err != nil {
		return err
	}
	var inputs map[string]string
	t.covered = time.Now()
	if c != nil {
		inputs, t.seq, t.covered = c.Offsets, c.Seq, c.Time
	}
	starts := newStarts(t.name, t.spec.Inputs, inputs)
	t.offsets = &offsets{at: maps.Clone(starts.offsets)}
	if t.offsets.at == nil {
		t.offsets.at = make(map[string]string)
	}
	t.restored = &Restored{Checkpoint: c, Cuts: t.dir.cuts(), dir: t.dir, isNew: make(map[string]bool), starts: starts}
	plan, err := t.plan(ctx, c)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := t.restoreAll(ctx, c, plan); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	t.runner.telemetry.restored(ctx, time.Since(began))
	return nil
}

// A part is one store to be restored, or to begin empty.
type part struct {
	store string
	isNew bool
	size  int64
}

// plan decides what becomes of each store, in the order in which they are restored.
func (t *Task) plan(ctx context.Context, c *checkpoint.Checkpoint) ([]part, error) {
	if len(t.spec.Stores) == 0 {
		only := part{isNew: c == nil}
		if c != nil {
			only.size = c.Bytes
		}
		return []part{only}, nil
	}
	found := make(map[string]int64)
	if c != nil {
		var err error
		if found, err = sizes(ctx, c); err != nil {
			return nil, err
		}
	}
	if err := t.checkDropped(c, found); err != nil {
		return nil, err
	}
	var plan []part
	for _, store := range t.spec.Stores {
		size, ok := found[store]
		plan = append(plan, part{store, !ok, size})
	}
	if !t.spec.InOrder {
		slices.SortStableFunc(plan, func(a, b part) int { return cmp.Compare(a.size, b.size) })
	}
	return plan, nil
}

// checkDropped makes sure that every store in the checkpoint is restored, or
// dropped on purpose.
func (t *Task) checkDropped(c *checkpoint.Checkpoint, found map[string]int64) error {
	var lost []string
	for store := range found {
		if !slices.Contains(t.spec.Stores, store) && !slices.Contains(t.spec.Dropped, store) {
			lost = append(lost, store)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	slices.Sort(lost)
	return backend.Invalidf("checkpoint %d has stores that the task does not name, and the next one would lose: %s; "+
		"add them to Spec.Stores or, if they are to go, to Spec.Dropped", c.Seq, strings.Join(lost, ", "))
}

func (t *Task) restoreAll(ctx context.Context, c *checkpoint.Checkpoint, plan []part) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, p := range plan {
		t.restored.isNew[p.store] = p.isNew
		rank := p.size
		if t.spec.InOrder {
			rank = int64(i)
		}
		group.Go(func() error { return t.restoreStore(ctx, c, p, rank) })
	}
	return group.Wait()
}

func (t *Task) restoreStore(ctx context.Context, c *checkpoint.Checkpoint, p part, rank int64) (err error) {
	dir := t.dir.store(p.store)
	if p.isNew {
		return makeEmpty(dir)
	}
	give, err := t.runner.restores.take(ctx, rank)
	if err != nil {
		return err
	}
	defer give()
	ctx, span := t.runner.telemetry.begin(ctx, "holdfast.restore", t.name)
	defer func() { span(err) }()
	var progress func(checkpoint.Progress)
	if t.spec.Progress != nil {
		progress = func(now checkpoint.Progress) { t.spec.Progress(p.store, now) }
	}
	return restore(ctx, c, p.store, dir, progress)
}
