package checkpoint

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/clock"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/history"
)

// This file makes a task of a checkpoint of another one, without copying data. The source
// holds that checkpoint for the fork: first an amendment of the source says so, and then
// the fork's first manifest is created. So whatever is interrupted, the data that a fork
// names is held. docs/protocol.md, "Forks", has the argument.

// ForkOptions say how a task is forked. The zero value is a good choice.
type ForkOptions struct {
	// At is the checkpoint to fork. The zero Ref is the latest.
	At Ref
}

// Fork makes a new task of the same job, whose first checkpoint is one of t's. No data is
// copied, and t's owner is not disturbed. It returns the number of that first checkpoint
// in the new task, which is released: claim it, or restore from it, like any other.
//
// From then on the two are independent, but for the data that they share: t keeps the
// checkpoint that was forked until no checkpoint of the fork needs its data any more (see
// [Task.Collect]) or the fork is deleted. Until then t cannot be deleted.
//
// Fork returns ErrConflict if there is a task with that name, and ErrNoCheckpoint if there
// is no checkpoint to fork. After ErrUnknown the fork may have been made, or may yet be;
// after any other error it was not.
func (t *Task) Fork(ctx context.Context, name string, opts ForkOptions) (seq uint64, err error) {
	ctx, end, err := t.job.life.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	if err := opts.At.check(); err != nil {
		return 0, err
	}
	target, err := t.job.Task(name)
	if err != nil {
		return 0, err
	}
	if name == t.Name() {
		return 0, backend.Invalidf("task %q cannot be forked into itself; choose another name", name)
	}
	base, err := target.requireFree(ctx)
	if err != nil {
		return 0, err
	}
	f := &forking{task: t, target: target, base: base, hold: format.Hold{Task: name, First: 1}}
	rand.Read(f.hold.Fork[:])
	if base != nil {
		f.hold.First = base.Seq + 1
	}
	err = f.holdSource(ctx, opts.At)
	if full := (*fullError)(nil); errors.As(err, &full) && !errors.Is(err, ErrUnknown) {
		if err := t.dropNeedlessHolds(ctx, full.held, false); err != nil {
			return 0, err
		}
		err = f.holdSource(ctx, opts.At)
	}
	if err != nil {
		return 0, err
	}
	if err := f.create(ctx); err != nil {
		if f.isHeld && !errors.Is(err, ErrUnknown) {
			f.giveUp(ctx)
		}
		return 0, err
	}
	return f.hold.First, nil
}

// A forking is a fork under way.
type forking struct {
	task, target *Task
	base         *history.Committed // the target's newest manifest, of an earlier life; or nil
	hold         format.Hold
	held         format.Retained    // the checkpoint to fork
	current      *format.Checkpoint // the same, if it was the current one; or nil
	isHeld       bool               // whether something was held for it
}

// requireFree makes sure that the task does not exist. It returns its newest manifest if
// it was deleted, or nil. If there is nothing of the task, it sends one request.
func (t *Task) requireFree(ctx context.Context) (*history.Committed, error) {
	taken := fmt.Errorf("%w: there is a task %q already; choose another name, or delete it", ErrConflict, t.Name())
	for o, err := range t.job.store.List(ctx, t.log.Dir+"/", "") {
		if err != nil {
			return nil, err
		}
		if _, _, ok := format.ParseManifestKey(o.Key); ok {
			s, err := t.log.Newest(ctx)
			if err == nil && (s == nil || s.Kind != format.KindDeleted) {
				err = taken
			}
			return s, err
		}
		if _, ok := format.ParseSegmentKey(t.log.Dir, o.Key); ok {
			if err := t.requireNew(ctx); errors.Is(err, ErrGone) {
				return nil, taken
			} else if err != nil {
				return nil, err
			}
			return nil, nil
		}
	}
	return nil, nil
}

// holdSource makes the source hold the checkpoint.
func (f *forking) holdSource(ctx context.Context, at Ref) error {
	return f.task.log.AmendHolds(ctx, func(base *history.Committed, all []format.Retained) (format.Holds, error) {
		again := slices.IndexFunc(base.Held, func(h format.Hold) bool { return h.Fork == f.hold.Fork })
		if again >= 0 { // by an attempt that another writer has continued from
			at = Seq(base.Held[again].Seq)
		}
		r, err := f.task.find(base, all, at)
		if err != nil {
			return nil, err
		}
		f.held, f.current, f.hold.Seq, f.hold.Time = r, nil, r.Seq, clock.Latest(base.Time, f.task.job.clock())
		if c := base.Current(); c.Seq == r.Seq {
			f.current = c
		}
		f.isHeld = again >= 0 || f.current == nil || sharesData(f.current)
		if again >= 0 || !f.isHeld {
			return base.Held, nil
		}
		holds := append(slices.Clone(base.Held), f.hold)
		if size, err := holds.Size(); err != nil || size > format.MaxHolds {
			return nil, &fullError{f.task.Name(), base.Held}
		}
		return holds, nil
	})
}

// sharesData reports whether a checkpoint has data in segments, or may have: its content may
// lie in one itself.
func sharesData(c *format.Checkpoint) bool {
	return c.Content == nil || len(c.Content.Segments) > 0
}

// create makes the fork's first manifest.
func (f *forking) create(ctx context.Context) error {
	of := f.current
	if of == nil {
		m, err := f.task.log.FindCommit(ctx, f.held)
		if err != nil {
			return err
		}
		of = m.Checkpoint
	}
	m := f.target.log.Follow(f.base, format.KindCommit, history.SegmentsFirst)
	m.Released = true
	m.Checkpoint = &format.Checkpoint{
		Seq: m.Seq, Epoch: m.Epoch, Files: of.Files, Bytes: of.Bytes, Content: of.Content, ContentAt: of.ContentAt,
	}
	if sharesData(of) {
		m.Source = &format.Source{Fork: f.hold.Fork, Task: f.task.Name(), Seq: f.hold.Seq}
		m.Checkpoint.Foreign, m.Checkpoint.Of = true, cmp.Or(of.Of, f.task.Name())
	}
	// The source's claims have shown that the store honours conditions.
	_, err := f.target.log.AppendOnce(ctx, m, true)
	if errors.Is(err, history.ErrTaken) {
		return fmt.Errorf("%w: task %q was made, or its number was taken, by another process meanwhile; fork again, or choose another name", ErrConflict, f.target.Name())
	}
	if err == nil && f.isHeld && !sharesData(of) {
		f.giveUp(ctx) // nothing need be held
	}
	return err
}

// giveUp drops the hold of a fork that was not made and never will be. If that fails, a
// collection does it later.
func (f *forking) giveUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTime)
	defer cancel()
	if err := f.task.dropHold(ctx, f.hold.Fork); err != nil {
		f.task.job.opts.Logger.WarnContext(ctx, "a checkpoint that need not be held for a fork is held until the next collection",
			"task", f.task.Name(), "checkpoint", f.hold.Seq, "fork", f.hold.Task, "err", err)
	}
}

// dropHold makes t hold nothing for a fork any more.
func (t *Task) dropHold(ctx context.Context, fork format.Token) error {
	return t.dropHolds(ctx, map[format.Token]bool{fork: true})
}

func (t *Task) dropHolds(ctx context.Context, forks map[format.Token]bool) error {
	err := t.log.AmendHolds(ctx, func(base *history.Committed, _ []format.Retained) (format.Holds, error) {
		return slices.DeleteFunc(slices.Clone(base.Held), func(h format.Hold) bool { return forks[h.Fork] }), nil
	})
	if errors.Is(err, ErrNoCheckpoint) { // the task was deleted, and holds nothing
		err = nil
	}
	return err
}

// dropNeedlessHolds drops what is held for forks that need it no more, and, if lost is set,
// for forks whose manifests someone has deleted.
func (t *Task) dropNeedlessHolds(ctx context.Context, held format.Holds, lost bool) error {
	needless := make(map[format.Token]bool)
	var errs []error
	for _, h := range held {
		needed, err := t.isNeeded(ctx, h, lost, false)
		if err != nil {
			errs = append(errs, fmt.Errorf("checkpoint %d stays held for task %q: %w", h.Seq, h.Task, err))
		} else if !needed {
			needless[h.Fork] = true
		}
	}
	if len(needless) > 0 {
		errs = append(errs, t.dropHolds(ctx, needless))
	}
	return errors.Join(errs...)
}

// neededHolds returns those of some holds that are needed. It writes nothing.
func (t *Task) neededHolds(ctx context.Context, held format.Holds) (needed format.Holds, err error) {
	for _, h := range held {
		is, err := t.isNeeded(ctx, h, false, true)
		if err != nil {
			return nil, err
		}
		if is {
			needed = append(needed, h)
		}
	}
	return needed, nil
}

// isNeeded reports whether a fork needs what is held for it, or may yet. If the fork's
// number is still free after the fence window, whoever was to make the fork is taken for
// dead: isNeeded takes the number, so that no one else can, unless it is a dry run. If lost
// is set, a fork of which earlier manifests are missing is taken for gone.
func (t *Task) isNeeded(ctx context.Context, h format.Hold, lost, dryRun bool) (bool, error) {
	fork, s, need, err := t.forkOf(ctx, h)
	switch {
	case err != nil || need == needed || need == making:
		return true, err
	case need == removed:
		return !lost, nil
	case need == ended || dryRun:
		return false, nil
	case s.Seq == 0:
		s = nil
	}
	_, err = fork.log.AppendOnce(ctx, fork.deletion(s), true)
	if errors.Is(err, history.ErrTaken) || errors.Is(err, ErrConflict) {
		return true, nil // it was made just now, or deleted and made: the next collection sees
	}
	return err != nil, err
}

// A need says whether a fork needs what is held for it.
type need int

const (
	needed  need = iota // it does
	making              // it may yet: it was not made, and its number is free
	ended               // it does not any more
	unmade              // it was not made within the fence window, and its number is free
	removed             // someone has removed its manifests
)

// needOf finds out whether a fork needs what is held for it.
func (t *Task) needOf(ctx context.Context, h format.Hold) (need, error) {
	_, _, need, err := t.forkOf(ctx, h)
	return need, err
}

// forkOf returns the fork for which something is held, its newest manifest, and whether it
// needs that.
func (t *Task) forkOf(ctx context.Context, h format.Hold) (fork *Task, s *history.Committed, n need, err error) {
	if fork, err = t.job.Task(h.Task); err != nil {
		return nil, nil, needed, err
	}
	s, err = history.Reread(ctx, func() (*history.Committed, error) { return fork.log.NewestForCertain(ctx) })
	switch {
	case err != nil:
	case s.Seq >= h.First && (s.Source == nil || s.Source.Fork != h.Fork):
		n = ended
	case s.Seq >= h.First:
	case s.Seq+1 != h.First || s.Seq > 0 && s.Kind != format.KindDeleted:
		n = removed
	case t.job.clock().Sub(h.Time).Abs() > FenceWindow:
		n = unmade
	default:
		n = making
	}
	return fork, s, n, err
}

// A fullError says that a task cannot hold data for another fork. It is an ErrConflict.
type fullError struct {
	task string
	held format.Holds
}

func (e *fullError) Error() string {
	return fmt.Sprintf("%v: task %q has %d forks that need its data, and cannot hold more; delete or detach some of them", ErrConflict, e.task, len(e.held))
}

func (e *fullError) Unwrap() error { return ErrConflict }

// A heldError says which forks keep a task from being deleted. It is an ErrHeld.
type heldError struct {
	task    string
	held    format.Holds
	removed []string      // those of the forks whose manifests someone has removed
	making  []format.Hold // those that do not exist yet
}

func (e *heldError) Error() string {
	names := make([]string, len(e.held))
	for i, h := range e.held {
		names[i] = fmt.Sprintf("%q (checkpoint %d)", h.Task, h.Seq)
	}
	text := fmt.Sprintf("task %q: %v: %s; delete or detach these first", e.task, ErrHeld, strings.Join(names, ", "))
	for _, name := range e.removed {
		text += fmt.Sprintf("; someone has removed %q: 'holdfast gc --lost' of %q ends what is held for it", name, e.task)
	}
	for _, h := range e.making {
		text += fmt.Sprintf("; %q is being made, or whoever was to make it has given up: then 'holdfast gc' of %q ends what is held for it, from %s on",
			h.Task, e.task, h.Time.Add(FenceWindow).UTC().Format(time.RFC3339))
	}
	return text
}

func (e *heldError) Unwrap() error { return ErrHeld }

// explain returns err. If it is a heldError, it is to say which forks someone has removed, and
// which do not exist yet.
func (t *Task) explain(ctx context.Context, err error) error {
	held := (*heldError)(nil)
	if !errors.As(err, &held) {
		return err
	}
	for _, h := range held.held {
		switch need, err := t.needOf(ctx, h); {
		case err != nil:
		case need == removed:
			held.removed = append(held.removed, h.Task)
		case need == making:
			held.making = append(held.making, h)
		}
	}
	return err
}

// A ForkInfo says which checkpoint of a task is kept for a fork, or from which one a fork
// was made.
type ForkInfo struct {
	Task string `json:"task"` // the other task
	Seq  uint64 `json:"seq"`  // of the checkpoint that is held
}

// forks returns what manifest m says of forks, for Status.
func forks(m *format.Manifest) (source *ForkInfo, list []ForkInfo) {
	if s := m.Source; s != nil {
		source = &ForkInfo{s.Task, s.Seq}
	}
	for _, h := range m.Held {
		list = append(list, ForkInfo{h.Task, h.Seq})
	}
	return source, list
}
