package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

const (
	// patience is how long a command runs before it shows how far it has come:
	// what is soon done must not flicker.
	patience = 500 * time.Millisecond
	// redraw is how often that is shown anew.
	redraw = 250 * time.Millisecond
	// rateSpan is how far back a rate looks. Segments of several megabytes are
	// sent at once, so it jumps if it looks back less.
	rateSpan = 10 * time.Second
)

// follow shows on a terminal how far a command has come, as report is told,
// until stop is called. report is nil if there is nobody to see it.
func (p *program) follow(doing, moved string) (report func(checkpoint.Progress), stop func()) {
	if p.asJSON || !p.stderr.isTerminal() {
		return nil, func() {}
	}
	f := &follower{screen: p.stderr, doing: doing, moved: moved}
	ended := make(chan struct{})
	var drawing sync.WaitGroup
	drawing.Go(func() { f.draw(ended) })
	return f.report, func() {
		close(ended)
		drawing.Wait()
	}
}

// followTasks is follow for a command that works on so many tasks. done is called after
// each.
func (p *program) followTasks(doing string, tasks int) (done, stop func()) {
	report, stop := p.follow(doing, "")
	if report == nil {
		return func() {}, stop
	}
	var mu sync.Mutex
	now := checkpoint.Progress{AllFiles: tasks}
	report(now)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		now.Files++
		report(now)
	}, stop
}

// A follower shows progress.
type follower struct {
	screen       *screen
	doing, moved string // "saving", "sent"; moved is "" if what is counted is tasks, and not files

	mu  sync.Mutex
	now checkpoint.Progress
}

func (f *follower) report(now checkpoint.Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = now
}

func (f *follower) latest() checkpoint.Progress {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// draw redraws the status until ended is closed, and removes it.
func (f *follower) draw(ended <-chan struct{}) {
	defer f.screen.hide()
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	begun := time.Now()
	var r rate
	r.add(begun, 0)
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		now, at := f.latest(), time.Now()
		perSecond := r.add(at, now.Moved)
		if at.Sub(begun) >= patience && now.AllFiles > 0 {
			f.screen.show(f.line(now, perSecond, f.screen.columns()))
		}
	}
}

// line says how far a command has come. What matters least comes last, and is
// left out where it does not fit.
func (f *follower) line(now checkpoint.Progress, perSecond int64, columns int) string {
	line := fmt.Sprintf("%s %d%%", f.doing, percent(now))
	if f.moved == "" {
		return fmt.Sprintf("%s, %d/%d tasks", line, now.Files, now.AllFiles)
	}
	for _, part := range []string{
		brief(now.Bytes) + " of " + brief(now.AllBytes),
		fmt.Sprintf("%d/%d files", now.Files, now.AllFiles),
		brief(now.Moved) + " " + f.moved,
		brief(perSecond) + "/s",
	} {
		if len(line)+len(", ")+len(part) > columns {
			break
		}
		line += ", " + part
	}
	return line
}

// brief is size with fewer digits: all of a line is to fit into 80 columns.
func brief(n int64) string {
	number, unit, _ := strings.Cut(size(n), " ")
	if whole, _, _ := strings.Cut(number, "."); len(whole) > 2 {
		number = whole
	}
	return number + " " + unit
}

// percent is rounded down: 100 means that all is done.
func percent(p checkpoint.Progress) int {
	if p.AllBytes == 0 {
		return 100 * min(p.Files, p.AllFiles) / max(p.AllFiles, 1)
	}
	return int(float64(min(p.Bytes, p.AllBytes)) / float64(p.AllBytes) * 100)
}

// A rate is how fast a number of bytes has grown of late.
type rate struct{ samples []sample }

type sample struct {
	at    time.Time
	bytes int64
}

// add takes the number down and returns its growth per second.
func (r *rate) add(at time.Time, bytes int64) int64 {
	if n := len(r.samples); n > 0 && bytes < r.samples[n-1].bytes {
		r.samples = nil // a restore begins anew
	}
	r.samples = append(r.samples, sample{at, bytes})
	for len(r.samples) > 2 && at.Sub(r.samples[1].at) >= rateSpan {
		r.samples = r.samples[1:]
	}
	first := r.samples[0]
	if !at.After(first.at) {
		return 0
	}
	return int64(float64(bytes-first.bytes) / at.Sub(first.at).Seconds())
}
