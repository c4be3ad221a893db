package checkpoint

import (
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// Retention says which checkpoints stay: all that at least one of its rules
// keeps. The current checkpoint always stays, and a savepoint until it expires.
// It becomes true by the commit that it is applied to, or by [Task.Prune];
// objects that nothing needs any more are deleted after that.
//
// The times are the store's, and are read off the checkpoints: ages count back
// from the latest of them, so that a task which stands still keeps what it has.
// What a commit makes is not among them yet, as its time is known only afterwards:
// until the next commit that many more may stay, but none is dropped too early.
//
// One time that is wrong drops nothing. The latest counts only if the clock of the
// machine, or another checkpoint, has reached it as well, and if for an owner at
// least half as much time has passed in its own process. A checkpoint whose time is
// shown to be wrong by the others and the machine's clock counts from when it must
// have been there.
//
// Checkpoints count from the one that was the current one last. That is the
// order of their times, unless the task has gone back to an older one: what it
// went back to counts before what it left behind.
//
// The zero value keeps the last DefaultLast. A count may be KeepAll.
type Retention struct {
	// Last is how many checkpoints stay, the new one included.
	Last int
	// Within is the age up to which checkpoints stay.
	Within time.Duration
	// Hourly is for how many hours one checkpoint stays, the newest of the hour:
	// the most recent hours that have one. Hours begin when they do in UTC.
	Hourly int
	// Daily is the same for days of UTC.
	Daily int
	// Weekly is the same for weeks, which begin on Monday.
	Weekly int
	// Monthly is the same for months.
	Monthly int
}

const (
	// DefaultLast is how many checkpoints stay when nothing else is said. With
	// one a second that is a few seconds' choice of where to go back to: what
	// is to stay longer is a savepoint, or kept by another rule.
	DefaultLast = 10
	// KeepAll as a count of Retention is for no end.
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

// pick returns those of old that stay beside a new checkpoint. The one that was
// the current one last comes first in old: after a task has gone back, that is
// the one that it went back to.
//
// Ages count back from now; see reckon.
func (r Retention) pick(old []format.Retained, now time.Time) []format.Retained {
	r = r.orDefault()
	if r.Last > 0 {
		r.Last-- // for the new one
	}
	var kept []format.Retained
	for i, why := range r.reasons(old, now) {
		if len(why) > 0 {
			kept = append(kept, old[i])
		}
	}
	return kept
}

// reasons says for each checkpoint of a list by which rules it stays, if by any.
//
// A period is that of the store's time, right or wrong: a wrong one then takes one
// period at most from the others.
func (r Retention) reasons(list []format.Retained, now time.Time) [][]string {
	periods := r.periods()
	reasons := make([][]string, len(list))
	for i, c := range list {
		var why []string
		if expires := c.Expires(); c.Savepoint != "" && (expires.IsZero() || now.Before(expires)) {
			why = append(why, "savepoint")
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

// A periodRule keeps the first checkpoint that it is shown of a period, for as
// many periods as there are left.
type periodRule struct {
	name  string
	left  int // negative is no end
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
