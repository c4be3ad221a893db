package backend

import "time"

// A climb finds out how many operations at a time are worth while: it compares what gets
// done in one round with what got done in the round before, when fewer were allowed.
type climb struct {
	since time.Time // the round's begin; zero if none has begun
	ended int       // operations in the round
	work  int64     // that they did

	tried  bool    // the number was raised at the end of the round before
	before int     // the number before that
	base   float64 // work per second with that number
	rest   int     // how many rounds to go before the number is raised
	pause  int     // rest after the next raise that is for nothing
}

const (
	// minRound keeps rounds from being so short that chance decides.
	minRound = 50 * time.Millisecond
	// perOperation is what an operation counts besides its bytes: sending a request costs
	// about as much as transferring so many.
	perOperation = 100 << 10
	// worthwhile is how much more has to get done with twice as many operations. On an empty
	// link it would be twice as much.
	worthwhile = 1.15
	// maxPause bounds the rounds between two raises. The first pause has one.
	maxPause = 64
)

// restart begins the round anew: something else than the number of operations decides what
// gets done. Whether a number that was raised is kept is then for a later round to say.
func (c *climb) restart() { c.since = time.Time{} }

// next counts an operation that has succeeded. At the end of a round it returns how many
// operations are allowed from now on, up to most, and otherwise now.
func (c *climb) next(now, most, bytes int) int {
	if c.since.IsZero() {
		c.since, c.ended, c.work = time.Now(), 0, 0
		return now
	}
	c.ended++
	c.work += int64(bytes) + perOperation
	took := time.Since(c.since)
	if c.ended < now || took < minRound {
		return now
	}
	rate := float64(c.work) / took.Seconds()
	c.since, c.ended, c.work = time.Now(), 0, 0
	if c.tried && rate < worthwhile*c.base {
		c.tried, c.rest = false, max(c.pause, 1)
		c.pause = min(2*c.rest, maxPause)
		return c.before
	}
	if c.tried {
		c.pause = 0
	}
	c.tried = false
	if c.rest > 0 {
		c.rest--
		return now
	}
	return c.raise(now, most, rate)
}

func (c *climb) raise(now, most int, rate float64) int {
	if now == most {
		return now
	}
	c.tried, c.before, c.base = true, now, rate
	return min(most, 2*now)
}
