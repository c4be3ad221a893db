package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/examples/internal/clicks"
)

// An account is what the reader is told: lines, and on a terminal a picture below them.
type account struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex
	drawn int   // lines of the picture that is there
	err   error // the first
}

func newAccount(w io.Writer, terminal bool) *account { return &account{w: w, terminal: terminal} }

// say adds to the lines.
func (a *account) say(format string, args ...any) { a.write(fmt.Sprintf(format, args...), "") }

// draw replaces the picture.
func (a *account) draw(picture string) { a.write("", picture) }

// write adds lines, and replaces the picture, if there is one.
func (a *account) write(lines, picture string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	if a.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", a.drawn) // up, and clear what is below
	}
	b.WriteString(lines)
	b.WriteString(picture)
	a.drawn = strings.Count(picture, "\n")
	if a.err == nil && b.Len() > 0 {
		_, a.err = io.WriteString(a.w, b.String())
	}
}

// say tells the reader a sentence, and when it was so.
func (s *story) say(format string, args ...any) {
	s.out.say("%6.1f s  %s\n", time.Since(s.begun).Seconds(), fmt.Sprintf(format, args...))
}

// How often the picture is drawn, and, where there is no terminal, a line is told.
const (
	frame = 200 * time.Millisecond
	still = 5 * time.Second
)

// paint shows how it goes, until the function that it returns is called.
func (s *story) paint(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	every := still
	if s.out.terminal {
		every = frame
	}
	var painting sync.WaitGroup
	painting.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if s.out.terminal {
				s.out.draw(s.picture())
			} else {
				s.say("%s", s.line())
			}
		}
	})
	return func() {
		cancel()
		painting.Wait()
		s.out.draw("")
	}
}

// line says how far the job is, in one line.
func (s *story) line() (line string) {
	s.crew.look(func() {
		committed, counted := 0, 0
		for _, p := range s.crew.partitions {
			committed += p.acked.counted
			counted += p.counted
		}
		sent := s.sentSoFar()
		line = fmt.Sprintf("%d of %d events sent, %d behind, %d in checkpoints; %s; %d of %d faults.",
			sent, s.events, max(0, sent-counted), committed, number(len(s.crew.workers), "worker"), s.done.Load(), len(s.faults))
	})
	return line
}

// picture draws the partitions and the workers.
func (s *story) picture() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n  %s\n\n  partition  worker           behind  last checkpoint\n", s.line())
	s.crew.look(func() {
		for i, p := range s.crew.partitions {
			owner := "-"
			if p.owner != nil {
				owner = strings.TrimSpace(fmt.Sprintf("%d %s", p.owner.id, p.owner.fate))
			}
			last := "-"
			if !p.acked.at.IsZero() {
				last = fmt.Sprintf("#%d, %.1f s ago, of %d events", p.acked.seq, time.Since(p.acked.at).Seconds(), p.acked.counted)
			}
			fmt.Fprintf(&b, "  %9d  %-14s %8d  %s\n", i, owner, max(0, int(s.sent[i].Load())-p.counted), last)
		}
		fmt.Fprint(&b, "\n  workers:")
		for _, w := range s.crew.workers {
			fmt.Fprintf(&b, " %d (%s)", w.id, cmp.Or(string(w.fate), "at work"))
		}
	})
	b.WriteByte('\n')
	return b.String()
}

// introduce says what is to come.
func (s *story) introduce() {
	s.out.say("%d clicks on %d pages are sent to NATS at %s over %v, in %d partitions.\n",
		s.events, clicks.Pages, s.broker.url, s.duration, s.partitions)
	s.out.say("%d workers count them. Each partition is checkpointed every %v to\n%s\nIn that time there are %s, %s for longer than a lease of %v, and %s (seed %d).\n\n",
		s.workers, s.interval, s.url, number(s.kills, "kill"), number(s.pauses, "pause"), s.expiry, number(s.rebalances, "rebalance"), s.seed)
}

// sumUp says what happened before the verdict.
func (s *story) sumUp() {
	c := s.crew
	s.out.say("\nWorkers were killed %s, paused %s, added %s and removed %s.\n",
		times(s.killed), times(int(s.paused.Load())), times(s.added), times(s.removed))
	s.out.say("They made %d commits, went on from a checkpoint %s, and counted %d events again.\n", c.commits, times(c.restores), c.replayed)
	s.out.say("For a cut, the loop stood still for %s.\n", spread(c.pauses))
	s.out.say("After %d of the pauses the store refused commits of the worker that had been paused: %d in all.\n", s.zombies.Load(), s.refused.Load())
	for _, wrong := range c.wrong {
		s.out.say("WRONG: %s.\n", wrong)
	}
}
