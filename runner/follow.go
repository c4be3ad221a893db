package runner

import (
	"context"
	"math"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A Why says why a task may be taken over.
type Why string

// Why Wait returns.
const (
	WasReleased Why = "released" // its owner has released it
	WasDeleted  Why = "deleted"  // it was deleted, and not claimed since
	WentSilent  Why = "silent"   // its owner gave no sign of life for so long
)

// A view is what a standby has seen of its task.
type view struct {
	status    checkpoint.Status
	seen      bool      // the task was looked at
	lookedAt  time.Time // when the last look that succeeded began
	looks     int       // since the last one by a listing
	heartbeat checkpoint.Heartbeat

	silence time.Duration // for how long there was no sign of life
	since   time.Time     // up to when that was counted
}

// newest returns the task's newest checkpoint, or nil.
func (v *view) newest() *checkpoint.Checkpoint { return v.status.Latest }

// listEvery is after how many looks one lists the manifests. A look in between asks for the
// next number alone, which a bucket that was brought back to an earlier state may never have.
const listEvery = 100

// mustList reports whether to list the manifests now.
func (v *view) mustList(now time.Time) bool {
	return !v.seen || v.looks >= listEvery || now.Sub(v.lookedAt) > checkpoint.FenceWindow/2
}

// saw notes the result of a look that began at a time. next is nil if there is nothing new.
func (v *view) saw(began time.Time, next *checkpoint.Status, beat *checkpoint.Heartbeat, interval time.Duration) {
	// Time in which nobody looked does not count as silence: the store could not be reached,
	// which may be so for the owner as well, or this process was suspended.
	v.silence += max(0, min(began.Sub(v.since), 2*interval))
	v.since = began
	if next != nil && v.differs(next) {
		if v.isSign(next) {
			v.sign()
		}
		v.status = *next
	}
	if beat != nil && v.isBeat(beat) {
		v.sign()
		v.heartbeat = *beat
	}
	v.seen, v.lookedAt = true, began
}

// sign begins a new silence.
func (v *view) sign() { v.silence, v.since = 0, time.Now() }

// differs reports whether a status is another one than that which is known.
func (v *view) differs(next *checkpoint.Status) bool {
	return !v.seen || next.Manifest != v.status.Manifest || next.Epoch != v.status.Epoch || next.Writer != v.status.Writer
}

// isSign reports whether a status that differs shows that the owner was alive: a claim or a
// commit does. An amendment, which anyone may make, does not.
func (v *view) isSign(next *checkpoint.Status) bool {
	return !v.seen || next.Epoch != v.status.Epoch || next.Writer != v.status.Writer || seqOf(next) != seqOf(&v.status)
}

func seqOf(s *checkpoint.Status) uint64 {
	if s.Latest == nil {
		return 0
	}
	return s.Latest.Seq
}

// isBeat reports whether a heartbeat is a new one of the task's owner. One of an owner that
// was fenced, and does not know it yet, says nothing.
func (v *view) isBeat(h *checkpoint.Heartbeat) bool {
	return h.Epoch == v.status.Epoch && h.Writer == v.status.Writer &&
		(h.Writer != v.heartbeat.Writer || h.Epoch != v.heartbeat.Epoch || h.N > v.heartbeat.N)
}

// free returns why the task may be taken over, or "".
func (v *view) free(silence time.Duration) Why {
	switch {
	case !v.seen:
		return ""
	case v.status.Deleted:
		return WasDeleted
	case v.status.Manifest > 0 && !v.status.Claimed:
		return WasReleased
	case v.silence >= silence:
		return WentSilent
	}
	return ""
}

// lookOn looks at the task again and again.
func (s *Standby) lookOn() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.lookers.Done():
			return
		}
		_ = s.look(false) // which is tolerated
		timer.Reset(s.spec.Interval)
	}
}

// look asks the store once what there is of the task.
func (s *Standby) look(list bool) error {
	s.looking <- struct{}{}
	defer func() { <-s.looking }()
	ctx, began := backend.WithUrgency(s.lookers, backend.Background), time.Now()
	s.mu.Lock()
	than, beats := s.view.status.Manifest, s.waiting > 0
	list = list || s.view.mustList(began)
	s.mu.Unlock()
	if list {
		than = 0
	}
	status, isNew, err := s.task.Newer(ctx, than)
	var beat *checkpoint.Heartbeat
	if err == nil && beats {
		beat, err = s.task.LastHeartbeat(ctx)
	}
	if err != nil {
		if s.lookers.Err() == nil {
			s.failed("look", err)
		}
		return err
	}
	var next *checkpoint.Status
	if list || isNew {
		next = &status
	}
	s.saw(began, next, beat, list)
	return nil
}

func (s *Standby) saw(began time.Time, next *checkpoint.Status, beat *checkpoint.Heartbeat, list bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &s.view
	v.looks++
	if list {
		v.looks = 0
	}
	before := v.newest()
	v.saw(began, next, beat, s.spec.Interval)
	if c := v.newest(); c != nil && before != nil && sameCheckpoint(c, before) {
		v.status.Latest = before // so that it is known again
	}
	switch c := v.newest(); {
	case c == nil, s.held != nil && s.held.checkpoint == c:
		s.fresh, s.failing = began, false
	case s.copying != nil && s.copying.checkpoint == c:
		s.copying.newestAt = began
	}
	s.wake()
}

func sameCheckpoint(a, b *checkpoint.Checkpoint) bool {
	return a.Seq == b.Seq && a.Epoch == b.Epoch && a.SameState(b)
}

// Wait waits until the task may be taken over, and returns why: its owner has released it,
// it was deleted, or there was no sign of life of its owner for the time of silence. A commit
// is one, and so is a heartbeat ([Options.Heartbeat]) of an owner that commits rarely. The
// call itself counts as one, so the silence begins with it. Then the host calls Promote.
//
// Silence is measured by this process's own clock, never by a time that another machine has
// written, and only while the store answers. A wrong suspicion is safe: whoever takes over
// fences the owner, which then commits nothing more, and what it did since its last commit
// is done again.
//
// silence is longer than the longest time between two signs of life, a few times
// FollowSpec.Interval at the least. If it is 0, Wait waits for a release or a deletion alone.
func (s *Standby) Wait(ctx context.Context, silence time.Duration) (Why, error) {
	if silence < 0 {
		return "", backend.Invalidf("task %q: a silence of %v; wait for a positive time, or 0 for ever", s.name, silence)
	}
	if silence == 0 {
		silence = math.MaxInt64
	}
	defer s.beginWait()()
	for {
		why, changed := s.free(silence)
		if why == WentSilent && s.look(true) == nil { // the manifests are listed before anyone is suspected
			why, _ = s.free(silence)
		} else if why == WentSilent {
			why = "" // not now
		}
		if why != "" {
			s.log.InfoContext(ctx, "the task may be taken over", "why", why)
			return why, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-s.lookers.Done():
			return "", s.notFollowed()
		}
	}
}

// beginWait begins to look for heartbeats, until the returned function is called.
func (s *Standby) beginWait() (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting++
	s.view.sign()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waiting--
	}
}

// free returns why the task may be taken over, or "", and what is closed when to ask again.
func (s *Standby) free(silence time.Duration) (why Why, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if why = s.view.free(silence); why != "" {
		s.verdict = new(s.view.status.Epoch)
	}
	return why, s.changed
}
