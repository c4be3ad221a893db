package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A verdict is what came of comparing the newest checkpoints with the truth.
type verdict struct {
	events      uint64
	counts      int // that were compared
	differences int
	some        []string // of the differences
}

// maxShown is how many differences are shown.
const maxShown = 10

// verify restores the newest checkpoint of each partition and compares every count.
func (s *story) verify(ctx context.Context) (v verdict, err error) {
	job, err := checkpoint.Open(ctx, s.url, checkpoint.Options{})
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, job.Close(context.WithoutCancel(ctx))) }()
	last, err := s.broker.last(ctx, s.partitions)
	if err != nil {
		return v, err
	}
	for p, counts := range truth(s.seed, s.events, s.partitions) {
		dir := filepath.Join(s.dir, "verify", strconv.Itoa(p))
		if err := v.partition(ctx, job, taskOf(p), last[p]+1, counts, dir); err != nil {
			return v, err
		}
	}
	return v, nil
}

// partition compares the counts of one partition. It empties want.
func (v *verdict) partition(ctx context.Context, job *checkpoint.Job, name string, end uint64, want map[string]uint64, dir string) error {
	task, err := job.Task(name)
	if err != nil {
		return err
	}
	made, err := task.Latest(ctx)
	if err != nil {
		return err
	}
	if err := made.Restore(ctx, dir, checkpoint.RestoreOptions{}); err != nil {
		return err
	}
	if at := made.Offsets[name]; at != strconv.FormatUint(end, 10) {
		v.differs("%s: checkpoint %d is at %q, not at %d, the end", name, made.Seq, at, end)
	}
	v.counts += len(want)
	for _, n := range want {
		v.events += n
	}
	for c, err := range counts(dir) {
		if err != nil {
			return err
		}
		if n := want[c.page]; c.n != n {
			v.differs("%s: %s was counted %d times; it was sent %d times", name, c.page, c.n, n)
		}
		delete(want, c.page)
	}
	for page, n := range want {
		v.differs("%s: %s was not counted; it was sent %d times", name, page, n)
	}
	return nil
}

// counts yields the pages in the state at dir, and how often each was seen.
// What it yields last is the error, if there was one.
func counts(dir string) iter.Seq2[pageCount, error] {
	return func(yield func(pageCount, error) bool) {
		db, err := pebble.Open(dir, pebbleOptions()) // one that is not there is made: it has no counts
		if err != nil {
			yield(pageCount{}, err)
			return
		}
		defer db.Close()
		it, err := db.NewIter(nil)
		if err != nil {
			yield(pageCount{}, err)
			return
		}
		defer it.Close()
		for ok := it.First(); ok; ok = it.Next() {
			n, err := decode(it.Value())
			if !yield(pageCount{string(it.Key()), n}, err) || err != nil {
				return
			}
		}
		if err := it.Error(); err != nil {
			yield(pageCount{}, err)
		}
	}
}

type pageCount struct {
	page string
	n    uint64
}

func (v *verdict) differs(format string, args ...any) {
	v.differences++
	if len(v.some) < maxShown {
		v.some = append(v.some, fmt.Sprintf(format, args...))
	}
}

func (v verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "The newest checkpoints, restored from the store, and the events that were sent:\n"+
		"%d events, %d counts compared, ", v.events, v.counts)
	if v.differences == 0 {
		b.WriteString("all equal.\n")
		return b.String()
	}
	fmt.Fprintf(&b, "%d DIFFERENCES:\n", v.differences)
	for _, d := range v.some {
		fmt.Fprintln(&b, "  ", d)
	}
	return b.String()
}
