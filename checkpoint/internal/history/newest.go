package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/holdfast-io/holdfast/backend"
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
	return nil, fmt.Errorf("task %q: the store lists a newest manifest that it does not have: %w", l.Task, backend.ErrUnsupported)
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

// NewestForCertain returns the newest manifest, or None. It lists twice, and returns
// ErrGone if what it read between may be a late manifest: one that a writer which slept
// has made under the number, after the newest was deleted.
func (l *Log) NewestForCertain(ctx context.Context) (*Committed, error) {
	c, err := l.Newest(ctx)
	if err != nil || c == nil {
		return None(), err
	}
	return c, l.checkSame(ctx, c)
}

// checkSame makes sure that c, which was just read, is the object that was listed
// before. If not, it returns ErrGone.
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

// timeOf returns the time of manifest number seq, or zero if the store does not have it.
func (l *Log) timeOf(ctx context.Context, seq uint64) (time.Time, error) {
	return l.timeAt(ctx, format.ManifestKey(l.Dir, seq))
}

// timeAt returns the store's time of the object with a key, or zero if it is not there.
func (l *Log) timeAt(ctx context.Context, key string) (time.Time, error) {
	for o, err := range l.Store.List(ctx, key, "") {
		if err == nil && o.Key != key { // a longer key, which begins with this one
			break
		}
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

// Has reports whether the store has manifest number seq, without reading it.
func (l *Log) Has(ctx context.Context, seq uint64) (bool, error) {
	_, err := l.Store.Get(ctx, format.ManifestKey(l.Dir, seq), 0, make([]byte, 1))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Reread calls read again as long as it returns ErrGone, which means that a checkpoint
// was retired while it was read. Each time there is a newer manifest, so a few attempts
// are enough.
func Reread[T any](ctx context.Context, read func() (T, error)) (v T, err error) {
	for range 5 {
		if v, err = read(); !errors.Is(err, cause.ErrGone) || ctx.Err() != nil {
			break
		}
	}
	return v, err
}
