package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/holdfast-io/holdfast/examples/internal/cli"
	"github.com/holdfast-io/holdfast/examples/internal/clicks"
)

// An account is what the reader is told: lines, and a picture below them if the window has room
// for it.
type account struct {
	w      io.Writer
	window window

	mu    sync.Mutex
	drawn string // the picture that is there
	err   error  // the first
}

// A window returns its size now, or zeros if nothing can be drawn in it.
type window func() (width, height int)

func newAccount(w io.Writer, window window) *account { return &account{w: w, window: window} }

// windowOf returns the window to which out writes. One whose TERM does not say that it can move
// its cursor has no size.
func windowOf(out io.Writer) window {
	f, ok := out.(*os.File)
	if name := os.Getenv("TERM"); !ok || name == "" || name == "dumb" {
		return func() (int, int) { return 0, 0 }
	}
	return func() (width, height int) {
		width, height, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0, 0 // it is no terminal
		}
		return width, height
	}
}

// rows returns how many rows of a window some lines take. One that is wider than the window goes on
// in the next row.
func rows(lines string, width int) (n int) {
	for line := range strings.Lines(lines) {
		n += 1 + max(0, utf8.RuneCountInString(strings.TrimSuffix(line, "\n"))-1)/width
	}
	return n
}

// say adds to the lines.
func (a *account) say(format string, args ...any) { a.write(fmt.Sprintf(format, args...), "") }

// draw replaces the picture. If the new one does not fit into the window, with a row for the
// cursor, none is there, and it returns false.
func (a *account) draw(picture string) bool {
	width, height := a.window()
	if width < 1 || rows(picture, width) >= height {
		a.write("", "")
		return false
	}
	a.write("", picture)
	return true
}

// write adds lines, and replaces the picture, if there is one.
func (a *account) write(lines, picture string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	if a.drawn != "" {
		b.WriteString(a.clear())
	}
	b.WriteString(lines)
	b.WriteString(picture)
	a.drawn = picture
	if a.err == nil && b.Len() > 0 {
		_, a.err = io.WriteString(a.w, b.String())
	}
}

// clear moves the cursor up to where the picture begins, and clears what is below. The window may
// have another size than when it was drawn: what has left it at the top stays.
func (a *account) clear() string {
	width, height := a.window()
	if width < 1 || height < 2 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\x1b[J", min(rows(a.drawn, width), height-1))
}

// say tells the reader a sentence, and when it was so.
func (s *story) say(format string, args ...any) {
	s.out.say("%6.1f s  %s\n", time.Since(s.begun).Seconds(), fmt.Sprintf(format, args...))
}

// How often the picture is drawn, and, where there is no room for it, a line is told.
const (
	frame = 200 * time.Millisecond
	still = 5 * time.Second
)

// paint shows how it goes, until the function that it returns is called.
func (s *story) paint(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var painting sync.WaitGroup
	painting.Go(func() {
		tick := time.NewTicker(frame)
		defer tick.Stop()
		for told := time.Now(); ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if !s.out.draw(s.picture()) && time.Since(told) >= still {
				s.say("%s", s.line())
				told = time.Now()
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
			sent, s.events, max(0, sent-counted), committed, cli.Number(len(s.crew.workers), "worker"), s.done.Load(), len(s.faults))
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
	s.out.say("%d clicks on %d pages are sent to NATS at %s over %v, in %s.\n",
		s.events, clicks.Pages, s.broker.url, s.duration, cli.Number(s.partitions, "partition"))
	s.out.say("%d workers count them. Each partition is checkpointed every %v to\n%s\nIn that time there are %s, %s for longer than a lease of %v, and %s (seed %d).\n\n",
		s.workers, s.interval, s.url, cli.Number(s.kills, "kill"), cli.Number(s.pauses, "pause"), s.expiry, cli.Number(s.rebalances, "rebalance"), s.seed)
}

// sumUp says what happened before the verdict.
func (s *story) sumUp() {
	c := s.crew
	s.out.say("\nWorkers were killed %s, paused %s, added %s and removed %s.\n",
		cli.Times(s.killed), cli.Times(int(s.paused.Load())), cli.Times(s.added), cli.Times(s.removed))
	s.out.say("They made %s, went on from a checkpoint %s, and counted %s again.\n", cli.Number(c.commits, "commit"), cli.Times(c.restores), cli.Number(c.replayed, "event"))
	s.out.say("For a cut, the loop stood still for %s.\n", spread(c.pauses))
	s.out.say("After %d of the pauses the store refused commits of the worker that had been paused: %d in all.\n", s.zombies.Load(), s.refused.Load())
	for _, wrong := range c.wrong {
		s.out.say("WRONG: %s.\n", wrong)
	}
}
