package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint/internal/cause"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/checkpoint/internal/segment"
)

// This file reads the list of retained checkpoints.

// piecesAtOnce is how many pieces of a list are requested at once.
const piecesAtOnce = 16

// All lists the checkpoints of manifest c, its own first, whether the list is in the
// manifest or in pieces, and sets c.Pieces. It returns ErrGone if a piece was deleted
// because c is not the newest any more. c may be nil.
func (l *Log) All(ctx context.Context, c *Committed) ([]format.Retained, error) {
	if c == nil {
		return nil, nil
	}
	if c.RetainedAt == nil {
		return c.With(c.Retained), nil
	}
	retained, err := l.retained(ctx, c.Manifest)
	if isMissing(err) {
		return nil, cmp.Or(l.checkNewest(ctx, c), l.missingFromList(err))
	}
	if err != nil {
		return nil, err
	}
	return c.With(retained), nil
}

// retained reads a list that lies in pieces.
func (l *Log) retained(ctx context.Context, m *format.Manifest) ([]format.Retained, error) {
	if err := l.readIndex(ctx, m); err != nil {
		return nil, err
	}
	pieces := make([][]format.Retained, len(m.Pieces))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(piecesAtOnce)
	for i := range m.Pieces {
		group.Go(func() error {
			return l.listPart(groupCtx, &m.Pieces[i].Chunk, func(data []byte) (err error) {
				pieces[i], err = m.Pieces[i].Decode(data)
				return err
			})
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	list, err := m.Join(pieces)
	if err != nil {
		key := l.Segments.Key(m.RetainedAt.Segment)
		return nil, &segment.Error{Key: key, Err: fmt.Errorf("manifest %d, and the list of which segment %s has the index: %w", m.Seq, key, err)}
	}
	return list, nil
}

// Salvage is All for a list of which parts may be lost. It returns what can still be read,
// and, as lost, why the rest cannot: an error for each part, none if all is there. Each part
// that cannot be read is asked for twice, because a bit may have flipped on its way here. c
// may be nil.
func (l *Log) Salvage(ctx context.Context, c *Committed) (all []format.Retained, lost []error, err error) {
	if c == nil {
		return nil, nil, nil
	}
	if c.RetainedAt == nil {
		return c.With(c.Retained), nil, nil
	}
	pieces, lost, err := l.readablePieces(ctx, c.Manifest)
	if err == nil && slices.ContainsFunc(lost, isMissing) {
		err = l.checkNewest(ctx, c)
	}
	if err != nil {
		return nil, nil, err
	}
	for i, why := range lost {
		if isMissing(why) {
			lost[i] = l.missingFromList(why)
		}
	}
	list, err := c.Salvage(pieces)
	if err != nil {
		list = c.Retained
	} else if len(lost) == 0 {
		_, err = c.Join(pieces)
	}
	if err != nil { // what could be read does not fit together
		key := l.Segments.Key(c.RetainedAt.Segment)
		lost = append(lost, &segment.Error{Key: key, Err: fmt.Errorf("manifest %d, and the list of which segment %s has the index: %w", c.Seq, key, err)})
	}
	return c.With(list), lost, nil
}

// readablePieces reads the pieces of m's list. One that is lost is nil.
func (l *Log) readablePieces(ctx context.Context, m *format.Manifest) (pieces [][]format.Retained, lost []error, err error) {
	if why, err := again(func() error { return l.readIndex(ctx, m) }); why != nil || err != nil {
		return nil, []error{why}, err
	}
	pieces, whys := make([][]format.Retained, len(m.Pieces)), make([]error, len(m.Pieces))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(piecesAtOnce)
	for i := range m.Pieces {
		group.Go(func() (err error) {
			whys[i], err = again(func() error {
				return l.listPart(ctx, &m.Pieces[i].Chunk, func(data []byte) (err error) {
					pieces[i], err = m.Pieces[i].Decode(data)
					return err
				})
			})
			return err
		})
	}
	err = group.Wait()
	for i, why := range whys {
		if why != nil {
			pieces[i], lost = nil, append(lost, why)
		}
	}
	return pieces, lost, err
}

// again reads a part of a list, and once more if it is lost. It returns why it is lost, or
// the error because of which that is not known.
func again(read func() error) (lost, err error) {
	isLost := func(err error) bool { return isMissing(err) || errors.Is(err, cause.ErrCorrupt) }
	err = read()
	if isLost(err) {
		err = read()
	}
	if isLost(err) {
		return err, nil
	}
	return nil, err
}

// Relist returns what a list says of a checkpoint, from the manifest that committed it, for
// one that is certain to be retained: then that manifest was never deleted, so that none can
// have been made late under its number. What amendments have said of it since is not in it.
func (l *Log) Relist(ctx context.Context, seq uint64) (format.Retained, error) {
	m, err := l.readCommit(ctx, seq)
	if err != nil {
		return format.Retained{}, err
	}
	m.Checkpoint.Time, err = l.timeOf(ctx, seq)
	if err == nil && m.Checkpoint.Time.IsZero() {
		err = fmt.Errorf("manifest %s: %w", format.ManifestKey(l.Dir, seq), fs.ErrNotExist)
	}
	return m.Checkpoint.Retained(), err
}

// readIndex sets m.Pieces.
func (l *Log) readIndex(ctx context.Context, m *format.Manifest) error {
	if m.Pieces != nil {
		return nil
	}
	return l.listPart(ctx, m.RetainedAt, func(data []byte) (err error) {
		m.Pieces, err = format.DecodeIndex(data)
		return err
	})
}

// listPart reads a part of a list. Its error says which object is missing.
func (l *Log) listPart(ctx context.Context, at *format.Chunk, decode func([]byte) error) error {
	err := l.Segments.Part(ctx, at, decode)
	if isMissing(err) {
		return &segment.Error{Key: l.Segments.Key(at.Segment), Err: err}
	}
	return err
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// checkNewest returns ErrGone if manifest c is not the newest any more, so that its list may
// have been deleted.
func (l *Log) checkNewest(ctx context.Context, c *Committed) error {
	seq, _, err := l.NewestSeq(ctx)
	if err == nil && seq != c.Seq {
		err = l.Overtaken(c)
	}
	return err
}

// missingFromList returns the error for a part of the newest manifest's list that is not in
// the store.
func (l *Log) missingFromList(notFound error) error {
	return fmt.Errorf("task %q: the newest manifest needs an object that is missing: %w: %w", l.Task, cause.ErrCorrupt, notFound)
}
