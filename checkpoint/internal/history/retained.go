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

// This file reads what the newest manifest lists, and what it names in segments.

// IntactAndAll is NewestAndAll for those who want an older checkpoint: when
// the newest manifest cannot be read, damage says why, and c is the newest one that can.
func (l *Log) IntactAndAll(ctx context.Context) (c *Committed, all []format.Retained, damage, err error) {
	c, all, err = l.NewestAndAll(ctx)
	if !errors.Is(err, cause.ErrCorrupt) && !errors.Is(err, cause.ErrVersion) {
		return c, all, nil, err
	}
	damage = err
	if c, err = l.NewestIntact(ctx); err != nil || c == nil {
		return nil, nil, nil, errors.Join(damage, err)
	}
	all, err = l.All(ctx, c)
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

// allForCertain returns all the checkpoints that exist, for those who might do harm
// by a list of the past: after NewestAndAll has found the newest manifest, and before
// it reads it, that may be retired and deleted, and a writer that slept may create
// another manifest of its number.
func (l *Log) allForCertain(ctx context.Context) ([]format.Retained, error) {
	return Reread(ctx, func() ([]format.Retained, error) {
		c, all, err := l.NewestAndAll(ctx)
		if err != nil || c == nil {
			return nil, err
		}
		return all, l.checkSame(ctx, c)
	})
}

// MadeLate returns those of a list of checkpoints whose manifests, as they were
// read just now, may be others, made late under their numbers: they are not
// retained any more, and not as old as they should be. (In a job that was copied
// all are younger, and those that are retained are what they are all the same.)
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

// All lists the checkpoints of manifest c, its own first, wherever the list lies. It
// returns ErrGone if c is not the newest any more, and its list is gone. c may be nil.
func (l *Log) All(ctx context.Context, c *Committed) ([]format.Retained, error) {
	if c == nil {
		return nil, nil
	}
	if c.RetainedAt == nil {
		return c.With(c.Retained), nil
	}
	var retained []format.Retained
	err := l.Segments.Part(ctx, c.RetainedAt, func(data []byte) (err error) {
		retained, err = c.DecodeRetained(data)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, l.missingList(ctx, c, err)
	}
	if err != nil {
		return nil, err
	}
	return c.With(retained), nil
}

// missingList tells why the retained list of manifest c is not there.
func (l *Log) missingList(ctx context.Context, c *Committed, notFound error) error {
	seq, _, err := l.NewestSeq(ctx)
	if err != nil {
		return err
	}
	if seq != c.Seq {
		return l.Overtaken(c)
	}
	return fmt.Errorf("task %q: the newest manifest needs an object that is missing: %w: %w", l.Task, cause.ErrCorrupt, notFound)
}

// Overtaken is the error of who relies on manifest c when that is not the newest any
// more, or may never have been in the history.
func (l *Log) Overtaken(c *Committed) error {
	return fmt.Errorf("task %q, manifest %d: %w", l.Task, c.Seq, cause.ErrGone)
}

// Commit is ReadCommit that tells why there is no such manifest.
func (l *Log) Commit(ctx context.Context, r format.Retained) (*format.Manifest, error) {
	m, err := l.ReadCommit(ctx, r)
	if errors.Is(err, fs.ErrNotExist) {
		err = l.Missing(ctx, r.Seq, err)
	}
	return m, err
}

// ReadCommit returns the manifest of a checkpoint that is retained.
func (l *Log) ReadCommit(ctx context.Context, r format.Retained) (*format.Manifest, error) {
	m, err := l.Read(ctx, r.Seq)
	if err != nil {
		return nil, err
	}
	if m.Kind != format.KindCommit {
		return nil, fmt.Errorf("manifest %s: %w: it is a %s; expected a commit", format.ManifestKey(l.Dir, r.Seq), cause.ErrCorrupt, m.Kind)
	}
	m.Checkpoint.Time, m.Checkpoint.CountsFrom = r.Time, r.CountsFrom
	return m, nil
}

// Content returns a checkpoint's content, wherever it lies.
func (l *Log) Content(ctx context.Context, c *format.Checkpoint) (*format.Content, error) {
	if c.Content != nil {
		return c.Content, nil
	}
	var content *format.Content
	err := l.Segments.Part(ctx, c.ContentAt, func(data []byte) (err error) {
		content, err = format.DecodeContent(data)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, l.Missing(ctx, c.Seq, err)
	}
	return content, err
}

// Missing tells why an object that checkpoint seq needs is not there: the
// checkpoint has been retired, which is no fault, or it has been damaged.
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
