package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/cause"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// Newest returns the newest manifest, or nil if there is none. It sends two
// requests, however long the history is.
func (l *Log) Newest(ctx context.Context) (*Committed, error) {
	for range 3 {
		seq, at, err := l.NewestSeq(ctx)
		if err != nil || seq == 0 {
			return nil, err
		}
		m, err := l.Read(ctx, seq)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since, so there are newer ones
		}
		if err != nil {
			return nil, err
		}
		return &Committed{m, at}, nil
	}
	return nil, fmt.Errorf("task %q: the store lists a newest manifest that it does not have", l.Task)
}

// NewestIntact returns the newest manifest that is not damaged, or nil. It is for
// readers only: a writer must know the newest of all.
func (l *Log) NewestIntact(ctx context.Context) (*Committed, error) {
	for o, err := range l.Store.List(ctx, format.ManifestPrefix(l.Dir), "") {
		if err != nil {
			return nil, err
		}
		_, seq, ok := format.ParseManifestKey(o.Key)
		if !ok {
			continue
		}
		m, err := l.Read(ctx, seq)
		if err == nil {
			return &Committed{m, o.ModTime}, nil
		}
		if !errors.Is(err, cause.ErrCorrupt) && !errors.Is(err, cause.ErrVersion) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, nil
}

// NewestForCertain returns the newest manifest, or None. It returns ErrGone if it may
// have read a manifest that was made late in its place.
func (l *Log) NewestForCertain(ctx context.Context) (*Committed, error) {
	c, err := l.Newest(ctx)
	if err != nil || c == nil {
		return None(), err
	}
	return c, l.checkSame(ctx, c)
}

// checkSame makes sure that c, which was read just now, is what was listed before.
func (l *Log) checkSame(ctx context.Context, c *Committed) error {
	at, err := l.timeOf(ctx, c.Seq)
	if err == nil && !SameObject(c.Time, at) {
		err = l.Overtaken(c)
	}
	return err
}

// NewestSeq returns the number and the time of the newest manifest, or zero if there
// is none. It sends one request.
func (l *Log) NewestSeq(ctx context.Context) (uint64, time.Time, error) {
	for o, err := range l.Store.List(ctx, format.ManifestPrefix(l.Dir), "") {
		if err != nil {
			return 0, time.Time{}, err
		}
		if _, seq, ok := format.ParseManifestKey(o.Key); ok {
			return seq, o.ModTime, nil
		}
	}
	return 0, time.Time{}, nil
}

// CheckNewest makes sure that no manifest follows c. It returns ErrFenced if one does.
// It sends one request.
func (l *Log) CheckNewest(ctx context.Context, c *Committed) error {
	seq, _, err := l.newestFrom(ctx, c.Seq)
	if err == nil && seq > c.Seq {
		err = fmt.Errorf("%w: manifest %d of task %q is not of this owner", cause.ErrFenced, seq, l.Task)
	}
	return err
}

// CheckNoneAfter makes sure that the store has no manifest after number seq, which a
// listing showed as the last. It returns ErrGone if there is one by now, and an
// error that wraps backend.ErrUnsupported if the store has one and does not list it.
func (l *Log) CheckNoneAfter(ctx context.Context, seq uint64) error {
	_, err := l.Read(ctx, seq+1)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil && !errors.Is(err, cause.ErrCorrupt) && !errors.Is(err, cause.ErrVersion):
		return err
	}
	if _, _, err := l.newestFrom(ctx, seq+1); err != nil {
		return err
	}
	return fmt.Errorf("task %q, manifest %d: %w", l.Task, seq, cause.ErrGone)
}

// timeOf returns the time of manifest number seq, or zero if it is not there.
func (l *Log) timeOf(ctx context.Context, seq uint64) (time.Time, error) {
	for o, err := range l.Store.List(ctx, format.ManifestKey(l.Dir, seq), "") {
		return o.ModTime, err
	}
	return time.Time{}, nil
}

// Read returns manifest number seq.
func (l *Log) Read(ctx context.Context, seq uint64) (*format.Manifest, error) {
	key := format.ManifestKey(l.Dir, seq)
	p := make([]byte, format.MaxManifest+1)
	n, err := l.Store.Get(ctx, key, 0, p)
	if err != nil {
		return nil, err
	}
	m, err := format.DecodeManifest(p[:n], l.Task, seq)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", key, err)
	}
	return m, nil
}

// Reread calls read until it is not overtaken by a writer: what it had found in
// the newest manifest was retired before it had read it. Each time a newer one
// is there, so a few times are enough.
func Reread[T any](ctx context.Context, read func() (T, error)) (v T, err error) {
	for range 5 {
		if v, err = read(); !errors.Is(err, cause.ErrGone) || ctx.Err() != nil {
			break
		}
	}
	return v, err
}
