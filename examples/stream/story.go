package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/examples/internal/clicks"

	"golang.org/x/sync/errgroup"
)

// A story is how the workers live, are killed, paused and replaced, and what came of it.
type story struct {
	*options
	broker *broker
	out    *account
	crew   *crew
	chance *rand.Rand
	begun  time.Time

	faults  []fault        // all of them, in their order
	done    atomic.Int64   // how many of them are done with
	sent    []atomic.Int64 // events that were sent, by partition
	pausing errgroup.Group // of the pause that is under way

	killed, added, removed int
	paused, refused        atomic.Int64 // pauses, and commits of paused workers that were refused
	zombies                atomic.Int64 // pauses after which a commit was refused
}

func newStory(o *options, b *broker, out *account) *story {
	return &story{
		options: o, broker: b, out: out, chance: rand.New(rand.NewPCG(o.seed, 2)),
		sent: make([]atomic.Int64, o.partitions),
	}
}

// What a run can end with.
var (
	errWrong     = errors.New("the checkpoints do not hold what was sent")
	errNoRestore = errors.New("workers were killed, and none has gone on from a checkpoint, so this run has shown nothing of that: send more -events, or take a shorter -interval")
	errNoZombie  = errors.New("no commit of a paused worker was refused, so this run has shown nothing of that: take more -pauses, or a broker that drops dead connections sooner")
)

func (s *story) settings() settings {
	return settings{
		Broker: s.broker.url, Stream: s.broker.stream, Partitions: s.partitions, URL: s.url,
		Interval: s.interval, Expiry: s.expiry,
	}
}

func (s *story) tell(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	s.begun = time.Now()
	s.crew = newCrew(s.settings(), filepath.Join(s.dir, "workers"), fail)
	s.crew.patience = time.Minute + 2*s.interval + 10*s.expiry
	defer s.crew.killAll()
	s.introduce()
	for range s.workers {
		if _, err := s.crew.start(); err != nil {
			return err
		}
	}
	s.faults = s.plan()
	painted := s.paint(ctx)
	err := s.live(ctx)
	painted()
	if err != nil {
		return err
	}
	s.sumUp()
	v, err := s.verify(ctx)
	if err != nil {
		return err
	}
	s.out.say("\n%s", v)
	return errors.Join(s.judge(v), s.out.err)
}

// judge says what the run ends with.
func (s *story) judge(v clicks.Verdict) error {
	switch {
	case v.Differences > 0 || len(s.crew.wrong) > 0:
		return errWrong
	case s.kills > 0 && s.crew.restores == 0:
		return errNoRestore
	case s.pauses > 0 && s.zombies.Load() == 0:
		return errNoZombie
	}
	return nil
}

// live sends the events, lets the faults happen, waits until all is counted, and ends the
// workers in good order.
func (s *story) live(ctx context.Context) error {
	whole := ctx
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.produce(ctx) })
	group.Go(func() error { return s.doFaults(ctx) })
	if err := group.Wait(); err != nil {
		return err
	}
	return s.finish(whole)
}

// finish waits until all that was sent is in checkpoints, and ends the workers.
func (s *story) finish(ctx context.Context) error {
	last, err := s.broker.last(ctx, s.partitions)
	if err != nil {
		return err
	}
	s.say("All events are sent. The workers count what is left.")
	for p, at := range last {
		what := fmt.Sprintf("all events of partition %d are in checkpoints", p)
		if err := s.crew.until(ctx, what, func() bool { return s.crew.partitions[p].acked.next > at }); err != nil {
			return err
		}
	}
	var all []*worker
	s.crew.look(func() { all = slices.Clone(s.crew.workers) })
	for _, w := range all {
		if err := s.crew.ask(w); err != nil {
			return err
		}
	}
	return s.crew.until(ctx, "all workers have left", func() bool { return len(s.crew.workers) == 0 })
}

// pace is how often the producer sends what is due.
const pace = 20 * time.Millisecond

// produce sends the events, evenly over the duration, but not the last ones before the last
// faults: nothing that goes wrong does so while nothing is to be counted.
func (s *story) produce(ctx context.Context) error {
	p := &producer{js: s.broker.js, stream: s.broker.stream}
	tick := time.NewTicker(pace)
	defer tick.Stop()
	due := 0
	for i, c := range clicks.All(s.seed, s.events, s.partitions) {
		for i >= due {
			if err := p.flush(ctx); err != nil {
				return err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			due = s.due()
		}
		if err := p.send(ctx, i, c); err != nil {
			return err
		}
		s.sent[c.Partition].Add(1)
	}
	return p.flush(ctx)
}

// due returns how many events are to be sent by now.
func (s *story) due() int {
	part := 1.0
	if s.duration > 0 {
		part = min(part, float64(time.Since(s.begun))/float64(s.duration))
	}
	part = min(part, float64(s.done.Load()+1)/float64(len(s.faults)+1))
	return int(part * float64(s.events))
}

// sentSoFar returns how many events were sent.
func (s *story) sentSoFar() (n int) {
	for p := range s.sent {
		n += int(s.sent[p].Load())
	}
	return n
}
