package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/cause"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file finds out whether somebody else has removed manifests, or has rolled the store
// back, while their writer goes on (A5). The writer notices nothing of that by its
// commits: the next number is free, as it would be otherwise.

// A Seen is a manifest in a listing.
type Seen struct {
	Seq  uint64
	Time time.Time
}

// youngAge is the age, counted back from the newest manifest, up to which a manifest is
// certain not to have been deleted by this library. That deletes what is older than the
// fence window. A4 allows each of the two times to be wrong by a quarter of it.
const youngAge = FenceWindow / 4

// maxLooked bounds how many manifests are looked at: ten requests to most stores.
const maxLooked = 10_000

// CheckUnbroken makes sure that nobody else has removed manifests: own, which the caller
// made, or others after since, which it has made or seen. kept are the checkpoints that
// own retains. It returns ErrLost if some were removed, and an error that wraps
// backend.ErrUnsupported if the store has own and does not list it. It sends one request,
// and one more for each further 1,000 manifests after since.
//
// Others may commit, amend and collect meanwhile. What they may have deleted is not
// reported.
func (l *Log) CheckUnbroken(ctx context.Context, own *Committed, since Seen, kept []format.Retained) error {
	seen, err := l.seenSince(ctx, since)
	if err != nil {
		return err
	}
	if len(seen) == 0 || seen[0].Seq < own.Seq {
		return l.notListed(ctx, own.Seq, seen)
	}
	gap, young := findGap(seen, kept)
	if gap == nil {
		return nil
	}
	seq, at, err := l.NewestSeq(ctx)
	switch {
	case err != nil:
		return err
	case young && at.Sub(seen[0].Time).Abs() > youngAge, !young && seq != own.Seq:
		return nil // so much later, or after another manifest, it may have been deleted as usual
	}
	return l.removed(gap.from, gap.to, seq)
}

// seenSince lists the manifests from the newest down to since. If that is not listed, it
// stands for itself in the end, one number lower, so that it counts as missing.
func (l *Log) seenSince(ctx context.Context, since Seen) (seen []Seen, err error) {
	for o, err := range l.Store.List(ctx, format.ManifestPrefix(l.Dir), "") {
		if err != nil {
			return nil, err
		}
		_, seq, ok := format.ParseManifestKey(o.Key)
		if !ok {
			continue
		}
		if seq < since.Seq {
			break
		}
		seen = append(seen, Seen{seq, o.ModTime})
		if seq == since.Seq || len(seen) == maxLooked {
			return seen, nil
		}
	}
	if len(seen) > 0 {
		seen = append(seen, Seen{since.Seq - 1, since.Time})
	}
	return seen, nil
}

// A gap is a range of numbers that are missing.
type gap struct{ from, to uint64 }

// findGap returns the first gap in a listing, newest first, that is no gap of manifests
// which became old and were deleted. young says that they are younger than any that this
// library deletes; otherwise one of them is of a checkpoint in kept.
func findGap(seen []Seen, kept []format.Retained) (g *gap, young bool) {
	for i, m := range seen[1:] {
		missing := gap{m.Seq + 1, seen[i].Seq - 1}
		if missing.from > missing.to {
			continue
		}
		if seen[0].Time.Sub(m.Time).Abs() <= youngAge { // those missing are younger than m
			return &missing, true
		}
		if slices.ContainsFunc(kept, func(r format.Retained) bool { return missing.from <= r.Seq && r.Seq <= missing.to }) {
			return &missing, false
		}
	}
	return nil, false
}

// notListed returns the error for manifest seq, which the store had, and which is newer
// than all that it lists.
func (l *Log) notListed(ctx context.Context, seq uint64, seen []Seen) error {
	_, err := l.Read(ctx, seq)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(seen) == 0:
		return l.removed(1, seq, 0)
	case errors.Is(err, fs.ErrNotExist):
		return l.removed(seen[0].Seq+1, seq, seen[0].Seq)
	case err != nil && !errors.Is(err, cause.ErrCorrupt) && !errors.Is(err, cause.ErrVersion):
		return err
	}
	return l.unlisted(seq)
}

// unlisted returns the error for a store that has manifest seq and does not list it.
func (l *Log) unlisted(seq uint64) error {
	return fmt.Errorf("task %q: the store says that %s exists, and lists no manifest from that on: "+
		"check the endpoint, and what stands between: %w",
		l.Task, format.ManifestKey(l.Dir, seq), backend.ErrUnsupported)
}

// removed returns the error for manifests that were removed. newest is the newest number
// that is listed, or 0.
func (l *Log) removed(from, to, newest uint64) error {
	what := fmt.Sprintf("manifest %d was in the store and is gone", to)
	if from < to {
		what = fmt.Sprintf("manifests %d to %d were in the store, or some of them, and are gone", from, to)
	}
	left := "none is left"
	if newest > 0 {
		left = fmt.Sprintf("the newest is %d now", newest)
	}
	return fmt.Errorf("task %q: %s; %s. Somebody has removed them, or has brought the store back to an earlier state "+
		"(a backup, a snapshot, a replica); Holdfast does neither. Stop what writes to the task, "+
		"and look at it with 'holdfast verify' before it is started again: %w", l.Task, what, left, cause.ErrLost)
}
