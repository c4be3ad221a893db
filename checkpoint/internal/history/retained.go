package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/cause"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file says which checkpoints exist, and reads parts of manifests that are too large
// for them and so lie in segments.

// IntactAndAll is NewestAndAll for callers that may be content with an older checkpoint:
// when the newest manifest cannot be read, damage says why, and c is the newest one that
// can be read.
func (l *Log) IntactAndAll(ctx context.Context) (c *Committed, all []format.Retained, damage, err error) {
	c, all, err = l.NewestAndAll(ctx)
	if errors.Is(err, cause.ErrCorrupt) { // a bit may have flipped on its way here
		c, all, err = l.NewestAndAll(ctx)
	}
	if !errors.Is(err, cause.ErrCorrupt) && !errors.Is(err, cause.ErrVersion) {
		return c, all, nil, err
	}
	damage = err
	if c, err = l.NewestIntact(ctx); err != nil || c == nil {
		return nil, nil, nil, errors.Join(damage, err)
	}
	all, _, err = l.Salvage(ctx, c)
	if errors.Is(err, cause.ErrGone) { // a newer manifest has another list, and this one's was deleted
		err = fmt.Errorf("%w; the list of checkpoints of manifest %d is not there any more", damage, c.Seq)
	}
	return c, all, damage, err
}

// NewestAndAll returns the newest manifest, nil if there is none, and all the
// checkpoints that exist, its own first.
func (l *Log) NewestAndAll(ctx context.Context) (*Committed, []format.Retained, error) {
	c, err := l.Newest(ctx)
	if err != nil {
		return nil, nil, err
	}
	all, err := l.All(ctx, c)
	return c, all, err
}

// allForCertain returns all the checkpoints that exist, for callers that would do harm by
// relying on a late manifest. NewestAndAll may read one: after it has listed the newest
// manifest, and before it reads it, that may be retired and deleted, and a writer that
// slept may create another manifest of its number.
func (l *Log) allForCertain(ctx context.Context) ([]format.Retained, error) {
	return Reread(ctx, func() ([]format.Retained, error) {
		c, err := l.NewestForCertain(ctx)
		if err != nil {
			return nil, err
		}
		return l.All(ctx, c)
	})
}

// MadeLate returns which of the checkpoints in read may have been read from late
// manifests, made under their numbers after the right ones were deleted. Those are the
// ones that are not retained any more, and whose manifests do not have the time that
// they should have. (After a job was copied, all manifests have later times. There,
// those that are still retained are the right ones all the same.)
func (l *Log) MadeLate(ctx context.Context, read []format.Retained) ([]format.Retained, error) {
	if len(read) == 0 {
		return nil, nil
	}
	still, err := l.allForCertain(ctx)
	if err != nil {
		return nil, err
	}
	var late []format.Retained
	for _, r := range Dropped(read, still) {
		at, err := l.timeOf(ctx, r.Seq)
		if err != nil {
			return nil, err
		}
		if !SameObject(r.Time, at) {
			late = append(late, r)
		}
	}
	return late, nil
}

// Dropped returns what is in before and not in after.
func Dropped(before, after []format.Retained) []format.Retained {
	kept := make(map[uint64]bool, len(after))
	for _, r := range after {
		kept[r.Seq] = true
	}
	return slices.DeleteFunc(slices.Clone(before), func(r format.Retained) bool { return kept[r.Seq] })
}

// Overtaken returns the error for a caller that has relied on manifest c, when c is not
// the newest any more, or may never have been in the history.
func (l *Log) Overtaken(c *Committed) error {
	return fmt.Errorf("task %q, manifest %d: %w", l.Task, c.Seq, cause.ErrGone)
}

// FindCommit is ReadCommit with another error for a manifest that does not exist: it says
// whether the checkpoint was retired or is damaged.
func (l *Log) FindCommit(ctx context.Context, r format.Retained) (*format.Manifest, error) {
	m, err := l.ReadCommit(ctx, r)
	if errors.Is(err, fs.ErrNotExist) {
		err = l.Missing(ctx, r.Seq, err)
	}
	return m, err
}

// ReadCommit returns the manifest of a checkpoint that is retained.
func (l *Log) ReadCommit(ctx context.Context, r format.Retained) (*format.Manifest, error) {
	m, err := l.readCommit(ctx, r.Seq)
	if err != nil {
		return nil, err
	}
	m.Checkpoint.Rename(r)
	m.Checkpoint.WrittenBy = m.WrittenBy
	return m, nil
}

// readCommit reads a manifest that is to be a commit.
func (l *Log) readCommit(ctx context.Context, seq uint64) (*format.Manifest, error) {
	m, err := l.Read(ctx, seq)
	if err == nil && m.Kind != format.KindCommit {
		err = fmt.Errorf("manifest %s: %w: it is a %s; expected a commit", format.ManifestKey(l.Dir, seq), cause.ErrCorrupt, m.Kind)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Content returns a checkpoint's content, whether it is in the manifest or in a segment.
// Each segment in it that is another task's says so.
func (l *Log) Content(ctx context.Context, c *format.Checkpoint) (*format.Content, error) {
	if c.Content != nil {
		return c.Content.Resolve(c.Of), nil
	}
	segments := l.Segments
	if c.Of != "" {
		var err error
		if segments, err = segments.Of(c.Of); err != nil {
			return nil, err
		}
	}
	var content *format.Content
	err := segments.Part(ctx, c.ContentAt, func(data []byte) (err error) {
		content, err = format.DecodeContent(data)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, l.Missing(ctx, c.Seq, err)
	}
	if err != nil {
		return nil, err
	}
	return content.Resolve(c.Of), nil
}

// Missing returns the reason why an object that checkpoint seq needs does not exist:
// either the checkpoint has been retired, which is no damage, or it is damaged.
func (l *Log) Missing(ctx context.Context, seq uint64, notFound error) error {
	_, all, err := l.NewestAndAll(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(r format.Retained) bool { return r.Seq == seq }) {
		return fmt.Errorf("task %q: checkpoint %d is retained, but an object that it needs is missing: %w: %w", l.Task, seq, cause.ErrCorrupt, notFound)
	}
	return fmt.Errorf("task %q, checkpoint %d: %w", l.Task, seq, cause.ErrGone)
}
