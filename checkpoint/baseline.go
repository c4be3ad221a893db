package checkpoint

import (
	"context"
	"errors"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// A baseline is the checkpoint that a new one is compared with. The zero
// baseline is none.
type baseline struct {
	*Checkpoint
	tree *lazyTree // nil if it was not read
}

// baseline returns a checkpoint, which may be nil, as what a new one is compared
// with.
func (t *Task) baseline(ctx context.Context, c *format.Checkpoint) (*baseline, error) {
	if c == nil {
		return new(baseline), nil
	}
	opened, err := t.open(ctx, c)
	if err != nil && damaged(err) {
		t.saveAnew(ctx, c.Seq, err)
		return new(baseline), nil
	}
	if err != nil {
		return nil, err
	}
	return &baseline{Checkpoint: opened}, nil
}

// damaged reports whether a baseline cannot be read, and still is what to follow. A
// baseline that was retired meanwhile (ErrGone) is not: another writer was first.
func damaged(err error) bool { return unreadable(err) && !errors.Is(err, ErrGone) }

func (t *Task) saveAnew(ctx context.Context, seq uint64, err error) {
	t.job.opts.Logger.WarnContext(ctx, "the checkpoint before cannot be read; everything is saved anew",
		"task", t.Name(), "checkpoint", seq, "err", err)
}

// A baseError is about the baseline, and was found after something was made of it.
type baseError struct{ error }

func (e *baseError) Unwrap() error { return e.error }

// ofBase marks an error of reading the baseline, unless that is nil.
func ofBase(err error) error {
	if err == nil {
		return nil
	}
	return &baseError{err}
}

// load reads the baseline's list of leaves. If that is damaged, the baseline becomes the zero
// one: the new checkpoint then stores everything itself.
func (b *baseline) load(ctx context.Context) (err error) {
	if b.Checkpoint == nil || b.tree != nil {
		return nil
	}
	b.tree, err = b.lazyTree(ctx)
	if err != nil && damaged(err) {
		b.task.saveAnew(ctx, b.Seq, err)
		*b, err = baseline{}, nil
	}
	return err
}
