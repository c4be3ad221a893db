package clicks

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/examples/internal/cli"
)

// A Verdict is what came of comparing the newest checkpoints of tasks with the truth.
type Verdict struct {
	Events      uint64 // that were sent
	Counts      int    // that were compared
	Differences int
	some        []string // of the differences
}

// maxShown is how many differences are shown.
const maxShown = 10

// Compare restores the newest checkpoint of a task into dir, and compares every count in it with
// want, which it empties. end is the offset that the task's input is to have come to.
func (v *Verdict) Compare(ctx context.Context, job *checkpoint.Job, name, end string, want map[string]uint64, dir string) error {
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
	if at := made.Offsets[name]; at != end {
		v.differs("%s: checkpoint %d is at %q, not at %q, the end", name, made.Seq, at, end)
	}
	v.Counts += len(want)
	for _, n := range want {
		v.Events += n
	}
	for c, err := range counts(dir) {
		if err != nil {
			return err
		}
		if n := want[c.page]; c.n != n {
			v.differs("%s: %s was counted %s; it was sent %s", name, c.page, cli.Times(int(c.n)), cli.Times(int(n)))
		}
		delete(want, c.page)
	}
	for page, n := range want {
		v.differs("%s: %s was not counted; it was sent %s", name, page, cli.Times(int(n)))
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

func (v *Verdict) differs(format string, args ...any) {
	v.Differences++
	if len(v.some) < maxShown {
		v.some = append(v.some, fmt.Sprintf(format, args...))
	}
}

// String says it to a person.
func (v Verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "The newest checkpoints, restored from the store, and the events that were sent:\n"+
		"%s, %s compared, ", cli.Number(int(v.Events), "event"), cli.Number(v.Counts, "count"))
	if v.Differences == 0 {
		b.WriteString("all equal.\n")
		return b.String()
	}
	fmt.Fprintf(&b, "DIFFERENCES: %d\n", v.Differences)
	for _, d := range v.some {
		fmt.Fprintln(&b, "  ", d)
	}
	return b.String()
}
