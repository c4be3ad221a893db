package checkpoint

import (
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// Retention says which checkpoints are kept: all that at least one of its rules
// keeps. The current checkpoint is always kept, a savepoint until it expires, and a
// checkpoint that a fork needs.
// Each commit and save applies Options.Retention, and [Task.Prune] the policy that it is
// given. Objects that nothing needs any more are deleted after that.
//
// Ages are computed from the checkpoints' own times, which are the store's. They count
// back from the latest of these times, so a task that stands still keeps what it has. The
// time of a new checkpoint is known only after its commit, and so takes part only in the
// next one: until then a few more checkpoints may be kept, but none is dropped too early.
//
// A single wrong time does not cause a checkpoint to be dropped by its age. Ages count
// from the latest time only if the machine's clock, or another checkpoint, has reached it
// as well; and, for an owner, only if at least half as much time has passed in its own
// process. If the other checkpoints and the machine's clock show that a time is wrong, it
// is replaced by the latest moment at which the checkpoint can have been committed.
//
// Last counts checkpoints by when each was last the current one. That is the order of
// their times, unless the task was rolled back: then the checkpoint that it was rolled
// back to counts as newer than those that came after it.
//
// The zero value keeps the last DefaultLast. A count may be KeepAll.
type Retention struct {
	// Last is how many checkpoints are kept, the new one included.
	Last int
	// Within is the age up to which checkpoints are kept.
	Within time.Duration
	// Hourly is for how many hours one checkpoint is kept, the newest of the hour. Only
	// hours that have a checkpoint count, the most recent first. Hours are those of UTC.
	Hourly int
	// Daily is the same for days of UTC.
	Daily int
	// Weekly is the same for weeks, which begin on Monday.
	Weekly int
	// Monthly is the same for months.
	Monthly int
}

const (
	// DefaultLast is how many checkpoints the zero Retention keeps. With a commit each
	// second, these are the checkpoints of the last ten seconds. To keep checkpoints
	// longer, use savepoints or another rule.
	DefaultLast = 10
	// KeepAll, as a count of Retention, means without limit.
	KeepAll = -1
)

func (r Retention) check() error {
	if r.Within < 0 {
		return backend.Invalidf("checkpoints are to stay within %v; that must not be negative", r.Within)
	}
	if n := min(r.Last, r.Hourly, r.Daily, r.Weekly, r.Monthly); n < KeepAll {
		return backend.Invalidf("%d checkpoints are to stay; no number below KeepAll, which is %d, means anything", n, KeepAll)
	}
	return nil
}

func (r Retention) orDefault() Retention {
	if r == (Retention{}) {
		r.Last = DefaultLast
	}
	return r
}

// pick returns which of the checkpoints in old are kept beside a new one. old is ordered
// by when each was last the current one, latest first: after a rollback, the checkpoint
// that the task was rolled back to comes first.
//
// Ages count back from now; see correctTimes. What is held for forks is kept.
func (r Retention) pick(old []format.Retained, now time.Time, held format.Holds) []format.Retained {
	r = r.orDefault()
	if r.Last > 0 {
		r.Last-- // for the new one
	}
	var kept []format.Retained
	for i, why := range r.reasons(old, now, held) {
		if len(why) > 0 {
			kept = append(kept, old[i])
		}
	}
	return kept
}

// reasons returns, for each checkpoint of a list, the rules that keep it, if any.
//
// Hours, days, weeks and months are decided by the store's times, even by wrong ones: a
// wrong time can take at most one such period from the other checkpoints.
func (r Retention) reasons(list []format.Retained, now time.Time, held format.Holds) [][]string {
	periods := r.periods()
	reasons := make([][]string, len(list))
	for i, c := range list {
		var why []string
		if expires := c.Expires(); c.Savepoint != "" && (expires.IsZero() || now.Before(expires)) {
			why = append(why, "savepoint")
		}
		if held.Has(c.Seq) {
			why = append(why, "fork")
		}
		if r.Last < 0 || i < r.Last {
			why = append(why, "last")
		}
		if r.Within > 0 && now.Sub(c.From()) <= r.Within {
			why = append(why, "within")
		}
		for j := range periods {
			if periods[j].takes(c.Time) {
				why = append(why, periods[j].name)
			}
		}
		reasons[i] = why
	}
	return reasons
}

// A periodRule keeps the first checkpoint that it sees of each period, such as an hour,
// until its number of periods is used up.
type periodRule struct {
	name  string
	left  int // how many periods are left; negative is without limit
	start func(time.Time) time.Time
	taken map[time.Time]bool
}

func (r Retention) periods() []periodRule {
	// Truncate counts from a Monday, the first day of the first year.
	every := func(d time.Duration) func(time.Time) time.Time {
		return func(t time.Time) time.Time { return t.Truncate(d) }
	}
	const day = 24 * time.Hour
	rules := []periodRule{
		{name: "hourly", left: r.Hourly, start: every(time.Hour)},
		{name: "daily", left: r.Daily, start: every(day)},
		{name: "weekly", left: r.Weekly, start: every(7 * day)},
		{name: "monthly", left: r.Monthly, start: month},
	}
	for i := range rules {
		rules[i].taken = make(map[time.Time]bool)
	}
	return rules
}

func month(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

func (p *periodRule) takes(t time.Time) bool {
	start := p.start(t.UTC())
	if p.left == 0 || p.taken[start] {
		return false
	}
	p.left--
	p.taken[start] = true
	return true
}
