package history

import (
	"context"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint/internal/clock"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// This file lets others in beside an owner that commits without a pause. Who claims or
// amends a task reads the newest manifest and then creates the next one, which takes two
// round trips to the store, however often it is tried. An owner that commits within that
// time is first each time. So who keeps losing puts an announcement into the store, and an
// owner that commits again and again looks for one, and pauses.
//
// Nothing but the waiting depends on it: an announcement that is lost, stale or forged
// costs an owner at most longestPause in every three seconds.

const (
	// quickCommits is after how many commits, each within quick of the one before, an owner
	// looks for announcements: fewer at once are no more than a burst.
	quickCommits = 10
	quick        = time.Second

	// lookEvery is how often such an owner looks: one request each time.
	lookEvery = 3 * time.Second

	// pauseFor is how long it pauses, and roundTrips how many round trips at the least: one
	// attempt of who announced takes six (it is told that it lost, lists, reads what it lost
	// to, lists, reads, creates), and begins at any time. It never pauses longer than
	// longestPause.
	pauseFor     = time.Second
	roundTrips   = 12
	longestPause = 5 * time.Second

	// announceEvery is how often who keeps losing says so, and announcedFor for how long
	// that counts, by the store's clock.
	announceEvery = 2 * time.Second
	announcedFor  = 10 * time.Second

	// lossesBefore is how many attempts may be lost before that is said.
	lossesBefore = 2

	// longestWait bounds the wait between two attempts: a pause is to have several.
	longestWait = 200 * time.Millisecond
)

// A Pace is how quickly an owner commits. The zero Pace is of one that begins.
type Pace struct {
	last   clock.Stamp // of the last commit
	looked clock.Stamp
	quick  int // commits in a row
}

// Committed is told of each commit, with its time.
func (p *Pace) Committed(at time.Time) {
	if p.last.Passed() > quick {
		p.quick = 0
	}
	p.last = clock.Now(at)
	p.quick++
}

// LetIn pauses if the owner whose pace p is commits without a pause, and someone who wants
// to claim or to amend the task keeps losing to it. base is the owner's last manifest. An
// error is of no consequence, and not returned; a pause ends with ctx.
func (l *Log) LetIn(ctx context.Context, p *Pace, base *Committed) {
	if p.quick < quickCommits || p.last.Passed() > quick || p.looked.Passed() < lookEvery {
		return
	}
	p.looked = clock.Now(base.Time)
	at, err := l.timeAt(ctx, format.AnnouncedKey(l.Dir))
	if err != nil || at.IsZero() || base.Time.Sub(at) > announcedFor {
		return
	}
	trip := p.looked.Passed()
	if trip > quick { // the request was tried again and again, and whoever waits had that time
		return
	}
	t := time.NewTimer(min(max(pauseFor, roundTrips*trip), longestPause))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// A contest is the series of attempts of who claims or amends a task.
type contest struct {
	log       *Log
	losses    int
	announced clock.Stamp
}

// lost waits to try again after an attempt was lost to another writer.
func (c *contest) lost(ctx context.Context, why error) error {
	if err := c.log.checkListed(ctx, why); err != nil {
		return err
	}
	c.losses++
	if c.losses >= lossesBefore && c.announced.Passed() >= announceEvery {
		o, _ := c.log.Store.Put(ctx, format.AnnouncedKey(c.log.Dir), []byte("{}\n")) // it only helps
		c.announced = clock.Now(o.ModTime)
	}
	short := c.log.Backoff
	if short.Max <= 0 || short.Max > longestWait {
		short.Max = longestWait
	}
	return short.Wait(ctx, c.losses)
}

// end takes the announcement back.
func (c *contest) end(ctx context.Context) {
	if c.announced != (clock.Stamp{}) {
		_ = c.log.Store.Delete(ctx, format.AnnouncedKey(c.log.Dir)) // or it grows stale
	}
}
