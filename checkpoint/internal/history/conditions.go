package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file checks that the store does what the protocol relies on: it refuses to
// create what exists, it lists what it has, and it gives one object one time.

// maxApart is by how much the time of an object in the reply to its Create and its time
// in a listing may differ. A4 allows any two times to be wrong by a quarter of the fence
// window. Of two times that are compared, one may be too early by maxApart and the other
// too late. That takes two thirds of the quarter, and leaves a third to the store's own
// clocks. Kerberos allows as much between two machines (RFC 4120). Clocks that NTP
// controls agree within a second.
const maxApart = FenceWindow / 12

// SameObject reports whether two listings of one key, with these times, saw the same
// object. If so, what was read in between was that object too.
//
// Once a manifest is deleted, a writer that slept may create another one of its number,
// which is no part of the history. That cannot happen before a whole fence window has
// passed, of which a quarter is allowed for the store's clock.
func SameObject(before, at time.Time) bool { return at.Sub(before).Abs() <= FenceWindow/2 }

// checkConditions makes sure that the store refuses to create what exists. Once manifest
// m is in the store, it repeats its Create with other bytes, which must fail. A store
// that ignores the condition would let two owners overwrite each other unnoticed. Every
// claim is checked, and not only the first, because a job may be copied to another store.
// A task's first saves are checked too.
func (l *Log) checkConditions(ctx context.Context, m *format.Manifest) error {
	other := *m
	again, err := l.NewAttempt(&other)
	if err != nil {
		return err
	}
	key := format.ManifestKey(l.Dir, m.Seq)
	for n := 1; ; n++ {
		_, err := l.Store.Create(ctx, key, again.data)
		if errors.Is(err, backend.ErrExist) {
			return nil
		}
		if err == nil {
			return l.createdTwice(ctx, m, key)
		}
		if err := l.Backoff.Again(ctx, n, err); err != nil {
			return fmt.Errorf("finding out whether the store honours conditional writes: %w", err)
		}
	}
}

// createdTwice returns the error for a second Create of manifest m that succeeded. Either
// the store ignores the condition, or later manifests were made and m was deleted.
func (l *Log) createdTwice(ctx context.Context, m *format.Manifest, key string) error {
	seq, _, err := l.NewestSeq(ctx)
	if err != nil {
		return err
	}
	if seq > m.Seq {
		return fmt.Errorf("%w, to number %d", ErrOvertaken, seq)
	}
	refusal := fmt.Errorf("the store let a second write to %s replace the first, although both asked to create it: "+
		"two owners could destroy each other's checkpoints; use a store that honours conditional writes: %w",
		key, backend.ErrUnsupported)
	return errors.Join(refusal, l.Store.Delete(ctx, key))
}

// checkListed makes sure, after an attempt found its number taken, that the store lists
// the manifest that took it, or a later one. If something, such as a proxy, answered each
// List as if there were nothing, the caller would start over for ever, or take the task
// for a new one.
func (l *Log) checkListed(ctx context.Context, lost error) error {
	var taken takenError
	if !errors.As(lost, &taken) {
		return nil
	}
	_, _, err := l.newestFrom(ctx, taken.seq)
	return err
}

// newestFrom is NewestSeq for a caller that knows that manifest number seq exists, or
// existed. If the store lists neither that number nor a later one, it returns an error
// that wraps backend.ErrUnsupported if the store has it, and ErrLost if it has been removed.
func (l *Log) newestFrom(ctx context.Context, seq uint64) (uint64, time.Time, error) {
	newest, at, err := l.NewestSeq(ctx)
	switch {
	case err != nil || newest >= seq:
		return newest, at, err
	case newest == 0:
		return 0, time.Time{}, l.notListed(ctx, seq, nil)
	}
	return newest, at, l.notListed(ctx, seq, []Seen{{newest, at}})
}

// checkTimes makes sure that the reply to the Create of manifest seq and a listing give
// it the same time. Times of both kinds are compared with each other (A4). A proxy that
// sets the Date header of replies itself, from a clock that is wrong, would make these
// comparisons meaningless.
func (l *Log) checkTimes(seq uint64, replied, listed time.Time) error {
	if listed.Sub(replied).Abs() <= maxApart {
		return nil
	}
	return fmt.Errorf("task %q: the store tells two times of %s: %s in its reply, and %s in its listing. "+
		"They must agree within %v, because who is fenced and what is old is told by both. "+
		"The cause is usually a reverse proxy that sets the Date of replies by a clock of its own: "+
		"let it pass the store's Date on (nginx: proxy_pass_header Date), or correct the clock that is wrong: %w",
		l.Task, format.ManifestKey(l.Dir, seq), replied.UTC().Format(time.RFC3339), listed.UTC().Format(time.RFC3339),
		maxApart, backend.ErrUnsupported)
}
