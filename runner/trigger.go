package runner

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// A schedule says when a task's next attempt to commit begins, and since when it
// is due. It looks at no clock: it is told the time.
type schedule struct {
	interval, minPause, maxDelay time.Duration
	maxShare                     float64
	place                        float64    // in the interval, from 0 to 1
	chance                       *rand.Rand // for jitter: the same for a task and an epoch

	next     time.Time // the next tick; zero for none
	due      time.Time // since when a commit is due; zero if none is
	ended    time.Time // when the last attempt ended
	retry    time.Time // after a failure: the next attempt does not begin before
	failures int       // in a row
}

// jitter is by how much of itself an interval is shorter or longer, at most.
const jitter = 0.05

// Attempts after failures wait for at least this long: the first time, and at
// most. The wait doubles from one to the next.
const (
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
)

// newSchedule returns the schedule of a task. Those of different names are spread
// over the interval.
func newSchedule(name string, epoch uint64, o *Options, now time.Time) *schedule {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	s := &schedule{
		minPause: o.MinPause, maxDelay: o.MaxDelay, maxShare: o.MaxShare,
		place:  rand.New(rand.NewPCG(h.Sum64(), 0)).Float64(),
		chance: rand.New(rand.NewPCG(h.Sum64(), epoch)),
	}
	s.setInterval(o.Interval, now)
	return s
}

// setInterval changes the interval. The next tick is at the task's place in it,
// so that all tasks together do not commit at once.
func (s *schedule) setInterval(d time.Duration, now time.Time) {
	s.interval, s.next = d, time.Time{}
	if d != Manual {
		s.next = now.Add(time.Duration(s.place * float64(d))).Add(1) // never now
	}
}

// request makes a commit due now. It reports whether one was due already.
func (s *schedule) request(now time.Time) (coalesced bool) {
	s.retry = time.Time{}
	if !s.due.IsZero() {
		return true
	}
	s.due = now
	return false
}

// tick makes a commit due if a tick has passed. It returns how many ticks have
// passed that make no commit of their own.
func (s *schedule) tick(now time.Time) (coalesced int) {
	for !s.next.IsZero() && !s.next.After(now) {
		if s.due.IsZero() {
			s.due = later(s.next, s.ended.Add(s.minPause))
		} else {
			coalesced++
		}
		s.next = s.next.Add(s.jittered(s.interval))
	}
	return coalesced
}

// wake returns when to look again, and whether that is for an attempt; ok is
// false if nothing is to come. After tick, what is not for an attempt lies ahead.
func (s *schedule) wake() (at time.Time, ok bool) {
	if s.due.IsZero() {
		return s.next, !s.next.IsZero()
	}
	return later(later(s.due, s.ended.Add(s.minPause)), s.retry), true
}

// holdFrom returns from when on steps are held back, or zero.
func (s *schedule) holdFrom() time.Time {
	if s.due.IsZero() {
		return time.Time{}
	}
	return s.due.Add(s.maxDelay)
}

// succeeded ends what was due. asked says that another commit was asked for since
// the cut, which is due from now on: what came before it was not to be had sooner.
func (s *schedule) succeeded(began, now time.Time, pause time.Duration, asked bool) {
	s.due, s.retry, s.ended, s.failures = time.Time{}, time.Time{}, now, 0
	if asked {
		s.due = now.Add(s.minPause)
	}
	if s.interval == Manual {
		return
	}
	interval := s.interval
	if s.maxShare > 0 {
		interval = max(interval, time.Duration(float64(pause)/s.maxShare))
	}
	s.next = began.Add(s.jittered(interval))
}

// failed leaves due what was due. The next attempt is at the next tick or, if
// that is sooner, when steps are held back, which wait for it. It is the host's to
// try again what it asks for itself.
func (s *schedule) failed(now time.Time, asked bool) (coalesced int) {
	s.ended = now
	if s.interval == Manual {
		s.due, s.retry = time.Time{}, time.Time{}
		if asked {
			s.due = now.Add(s.minPause)
		}
		return 0
	}
	coalesced = s.tick(now)
	wait := min(firstRetry<<min(s.failures, 10), maxRetry)
	s.failures++
	s.retry = s.next
	if from := s.holdFrom(); from.Before(s.retry) {
		s.retry = from
	}
	s.retry = later(s.retry, now.Add(s.jittered(wait)))
	if asked {
		s.retry = time.Time{}
	}
	return coalesced
}

func (s *schedule) jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + jitter*(2*s.chance.Float64()-1)))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
