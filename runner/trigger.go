package runner

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// A schedule says when a task's next attempt to commit begins, and since when it
// is due. It reads no clock: its callers pass the time.
type schedule struct {
	interval, minPause, maxDelay time.Duration
	maxShare                     float64
	place                        float64    // in the interval, from 0 to 1
	origin                       time.Time  // of the intervals; each tick is at the place in one of them
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
	s.interval, s.origin, s.next = d, now, time.Time{}
	if d != Manual {
		s.next = s.tickIn(0).Add(1) // never now
	}
}

// tickIn returns when the tick in an interval is, without jitter.
func (s *schedule) tickIn(interval int64) time.Time {
	return s.origin.Add(time.Duration(interval) * s.interval).Add(time.Duration(s.place * float64(s.interval)))
}

// nextTick returns the next tick that is at least half an interval after t. So a commit
// that was asked for moves no tick, and tasks that were all committed at once do not stay
// together. The jitter is half of it, because two ticks make the time between them.
func (s *schedule) nextTick(t time.Time) time.Time {
	first := s.tickIn(0)
	ahead := t.Add(s.interval / 2).Sub(first)
	intervals := (ahead + s.interval - 1) / s.interval // rounded up
	shift := s.jittered(s.interval) - s.interval
	return s.tickIn(int64(intervals)).Add(shift / 2)
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
	if s.next.IsZero() || s.next.After(now) {
		return 0
	}
	coalesced = int(now.Sub(s.next) / s.interval)
	if s.due.IsZero() {
		s.due = later(s.next, s.ended.Add(s.minPause))
	} else {
		coalesced++
	}
	s.next = s.nextTick(now)
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

// dueFrom returns since when a commit is due or, if none is, from when on one will be,
// without another call of tick; zero for never.
func (s *schedule) dueFrom() time.Time {
	if !s.due.IsZero() || s.next.IsZero() {
		return s.due
	}
	return later(s.next, s.ended.Add(s.minPause))
}

// holdFrom returns from when on steps are held back, or zero. That is known before a
// commit is due: the task's goroutine may be in a hook when it becomes so.
func (s *schedule) holdFrom() time.Time {
	from := s.dueFrom()
	if from.IsZero() {
		return from
	}
	return from.Add(s.maxDelay)
}

// succeeded records a commit: none is due any more. asked says that another one was asked
// for since the cut. That one is due from now on, because it could not begin earlier.
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
	s.next = s.nextTick(began)
	if interval > s.interval {
		s.next = began.Add(s.jittered(interval))
	}
}

// madeAfterAll records that a commit that was in doubt was made: what is due is so from now
// on.
func (s *schedule) madeAfterAll(now time.Time) {
	s.failures = 0
	if !s.due.IsZero() {
		s.due = now
	}
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
	wait := retryWait(s.failures)
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

// retryWait returns how long the next attempt waits after so many failures before this one.
func retryWait(failures int) time.Duration { return min(firstRetry<<min(failures, 10), maxRetry) }

func (s *schedule) jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + jitter*(2*s.chance.Float64()-1)))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
