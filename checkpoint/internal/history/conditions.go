package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file finds out whether the store does what the protocol relies on: it refuses to
// create what exists, it lists what it has, and it tells one time of one object.

// maxApart is by how much two times may differ that the store tells of one object:
// in the reply to its Create, and in a listing. A4 allows a quarter of the fence window
// between any two times. One may be told too early by that much and the other too late,
// which takes two thirds of the quarter, and leaves a third to the store's own clocks.
// Kerberos allows as much between two machines (RFC 4120); clocks that are kept by NTP
// are within a second.
const maxApart = FenceWindow / 12

// SameObject reports whether the object that was written at one time is the one that
// was found with another before, and so whether what was read in between is.
// Once a manifest is deleted, a writer that slept may create another of its number,
// which is no part of the history: but not before a whole window has gone by, less the
// quarter that the store's clock may be wrong by.
func SameObject(before, at time.Time) bool { return at.Sub(before).Abs() <= FenceWindow/2 }

// checkConditions makes sure that the store refuses to create what exists, once manifest
// m is in it, by repeating its Create with other bytes. A store that ignores
// the condition would let two owners overwrite each other unseen. Every claim
// does so, and the first saves: a job may be copied to another store.
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

// createdTwice says what it means that a second Create of manifest m succeeded: the
// store ignores the condition, unless the task has gone on so far that m was deleted.
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

// checkListed makes sure, after an attempt was lost to a manifest, that the store lists
// that or a later one. What answers a List as if there were nothing, a proxy
// say, would have its caller start over for ever, or take the task for new.
func (l *Log) checkListed(ctx context.Context, lost error) error {
	var taken takenError
	if !errors.As(lost, &taken) {
		return nil
	}
	_, _, err := l.newestFrom(ctx, taken.seq)
	return err
}

// newestFrom is NewestSeq for who knows that manifest number seq exists, or did. It
// returns an error that wraps backend.ErrUnsupported if the store lists no such number
// and no later one.
func (l *Log) newestFrom(ctx context.Context, seq uint64) (uint64, time.Time, error) {
	newest, at, err := l.NewestSeq(ctx)
	if err == nil && newest < seq {
		err = fmt.Errorf("task %q: the store says that %s exists, and lists no manifest from that on: "+
			"check the endpoint, and what stands between: %w",
			l.Task, format.ManifestKey(l.Dir, seq), backend.ErrUnsupported)
	}
	return newest, at, err
}

// checkTimes makes sure that the reply to the Create of manifest seq and a listing tell
// the same time of it. Ages are told from both (A4), and a proxy that sets the Date
// of replies itself, by a clock that is wrong, would make them mean nothing.
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
