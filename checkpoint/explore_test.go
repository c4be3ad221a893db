package checkpoint_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/explore"
)

var (
	exploreDepth  = flag.Int("explore.depth", 0, "by how much deeper TestExplore enumerates than it does in CI")
	exploreN      = flag.Int("explore.n", 2000, "number of schedules that TestExplore draws at random for each play, until few are new")
	exploreSeed   = flag.Uint64("explore.seed", 0, "seed of the first of them")
	exploreReplay = flag.String("explore.replay", "", "run one schedule of TestExplore, as printed by it: PLAY:CHOICES")
)

// A play says what several processes do, and which faults may happen.
type play struct {
	name   string
	last   int          // the number of checkpoints that retention keeps
	before func(*stage) // nil for a new task
	roles  []role
	faults int // the largest number of faults in one schedule
	jumps  int // the largest number of jumps of the clock in one schedule
	depth  int // the depth to which all schedules are run in CI
}

// A role is what one process does, before the schedule begins and in it.
type role struct {
	name   string
	dies   bool // it may die; for a reader or a collector this would test nothing
	before func(*process)
	run    func(*process)
	ahead  time.Duration // how far the times in its replies are ahead; those in listings are the bucket's
}

// behind returns the role with replies whose times come from a proxy's clock.
func (r role) behind(ahead time.Duration) role {
	r.ahead = ahead
	return r
}

var (
	collector = role{name: "collector", run: (*process).collect}
	reader    = role{name: "reader", run: (*process).read}
)

// small and big are states. big does not fit into a manifest.
var (
	small fstest.MapFS
	big   = fstest.MapFS{"a": {Data: noise(17 << 10)}, "b": {Data: noise(300)}}
	other = fstest.MapFS{"a": {Data: noise(17 << 10)}, "b": {Data: noise(18 << 10)}} // shares a with big
)

func owner(states ...fstest.MapFS) role {
	return role{name: "owner", dies: true, before: settled, run: func(p *process) { p.commits(states) }}
}

// heir claims the task and commits.
func heir(name string, states ...fstest.MapFS) role {
	return role{name: name, dies: true, run: func(p *process) {
		p.claim()
		p.commits(states)
	}}
}

func (p *process) commits(states []fstest.MapFS) {
	for _, state := range states {
		p.commit(state)
	}
	p.close()
}

// settled is an owner whose first commit, with its clean-up, is over.
func settled(p *process) {
	p.claim()
	p.commit(big)
	quiesce()
}

// history is what an earlier owner has left: two checkpoints that share data, and a
// segment that no manifest names.
func history(s *stage) {
	first := s.anyone
	first.claim()
	first.commit(big)
	first.commit(other)
	first.close()
	key := format.SegmentKey(dir, format.SegmentID{Epoch: 1, Writer: format.WriterID{0xee}, N: 1})
	if _, err := first.door.Put(context.Background(), key, []byte("x")); err != nil {
		panic(err)
	}
}

// lost is a task whose newest manifests someone has deleted: all those of an owner
// that came after history.
func lost(s *stage) {
	history(s)
	second := s.anyone
	second.claim()
	second.commit(big)
	second.commit(other)
	second.close()
	s.audit.lose(4)
}

func saver(name string, states ...fstest.MapFS) role {
	return role{name: name, dies: true, run: func(p *process) {
		for _, state := range states {
			p.save(state)
		}
	}}
}

var plays = []*play{
	{name: "takeover", last: 2, before: history, faults: 1, depth: 7,
		roles: []role{owner(other, small), heir("heir", big), collector, reader}},
	{name: "first", last: 2, faults: 1, depth: 8,
		roles: []role{heir("one", big), heir("other", small), collector, reader}},
	{name: "window", last: 1, before: history, faults: 1, jumps: 2, depth: 6,
		roles: []role{owner(small, small).behind(-5 * time.Minute), heir("heir", small, other, small).behind(5 * time.Minute), collector}},
	{name: "saves", last: 2, before: history, faults: 1, depth: 8,
		roles: []role{saver("one", other, big), saver("other", big), collector, reader}},
	{name: "back", last: 2, before: history, faults: 1, depth: 7,
		roles: []role{owner(other, small), {name: "back", dies: true, run: (*process).back}, collector, reader}},
	{name: "lost", last: 5, before: lost, faults: 1, depth: 6,
		roles: []role{heir("heir", big, other), saver("save", other), collector, reader}},
	{name: "amend", last: 2, before: history, faults: 1, depth: 6,
		roles: []role{owner(other, small), amender, collector, reader}},
	{name: "amends", last: 2, before: history, faults: 2, depth: 5,
		roles: []role{owner(other, small), amender, pruner, heir("heir", small)}},
	{name: "amend late", last: 1, before: history, faults: 1, jumps: 2, depth: 5,
		roles: []role{owner(small, small).behind(-5 * time.Minute), amender.behind(5 * time.Minute), heir("heir", small, small), collector}},
	{name: "fork", last: 1, before: history, faults: 1, depth: 5,
		roles: []role{owner(small, other), forker, forkOwner, collector}},
	{name: "fork late", last: 1, before: history, faults: 1, jumps: 2, depth: 5,
		roles: []role{owner(small, other).behind(-5 * time.Minute), forker.behind(5 * time.Minute), collector, forkOwner}},
	{name: "trouble", last: 2, before: history, faults: 3, jumps: 1, depth: 5,
		roles: []role{owner(other, small, big), heir("heir", big, small), collector, reader}},
}

// amender changes names beside the others, and pruner removes checkpoints.
var (
	amender = role{name: "amender", dies: true, run: (*process).amend}
	pruner  = role{name: "pruner", dies: true, run: func(p *process) {
		_, err := p.task.Prune(context.Background(), checkpoint.Retention{Last: 1}, checkpoint.PruneOptions{})
		p.check("prune", err, checkpoint.ErrUnknown)
	}}
)

// forker forks the task, and forkOwner goes on with the fork until it is deleted.
var (
	forker    = role{name: "forker", dies: true, run: (*process).makeFork}
	forkOwner = role{name: "fork's owner", dies: true, run: (*process).commitFork}
)

// amend makes the latest checkpoint a savepoint, and renames it. No other process
// changes names, so what it was told remains true until the end.
func (p *process) amend() {
	err := second(p.task.AddSavepoint(context.Background(), "mine", checkpoint.SavepointOptions{}))
	p.check("savepoint", err, checkpoint.ErrUnknown)
	if err != nil {
		return
	}
	p.wantSavepoint("mine")
	err = second(p.task.RenameSavepoint(context.Background(), "mine", "yours"))
	p.check("rename", err, checkpoint.ErrUnknown)
	if err == nil {
		p.wantSavepoint("yours")
	}
}

// wantSavepoint checks that the newest manifest has a savepoint.
func (p *process) wantSavepoint(name string) {
	p.audit.mu.Lock()
	all := p.audit.newest.all
	p.audit.mu.Unlock()
	if !slices.ContainsFunc(all, func(r format.Retained) bool { return r.Savepoint == name }) {
		p.bad("savepoint %q was acknowledged, and is not there", name)
	}
}

// back rolls back to the older checkpoint.
func (p *process) back() {
	owner, err := p.task.Claim(context.Background(), checkpoint.ClaimOptions{At: checkpoint.Seq(3)})
	p.check("claim at 3", err, checkpoint.ErrNoCheckpoint)
	if err == nil {
		p.owner = owner
		p.commit(other)
		p.close()
	}
}

// TestExplore runs the engine one store call at a time: all schedules that differ in
// their first steps, and others at random. If an invariant does not hold, it reports
// the schedule, which -explore.replay runs again.
func TestExplore(t *testing.T) {
	// Each schedule is short, and leaves much garbage in memory.
	percent := debug.SetGCPercent(800)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	start, runs, distinct := time.Now(), new(atomic.Int64), new(atomic.Int64)
	t.Cleanup(func() {
		took := time.Since(start)
		t.Logf("%d schedules, %d of them distinct, in %v: %.0f and %.0f a second",
			runs.Load(), distinct.Load(), took.Round(time.Second), float64(runs.Load())/took.Seconds(), float64(distinct.Load())/took.Seconds())
	})
	for _, p := range plays {
		t.Run(p.name, func(t *testing.T) {
			choices, replay := strings.CutPrefix(*exploreReplay, p.name+":")
			if *exploreReplay != "" && !replay {
				t.Skip("another play is replayed")
			}
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				e := &explorer{T: t, stage: newStage(p), seen: make(map[uint64]struct{})}
				if replay {
					e.replay(choices)
					return
				}
				e.explore()
				runs.Add(int64(e.runs))
				distinct.Add(int64(len(e.seen)))
			})
		})
	}
}

// An explorer runs the schedules of one play.
type explorer struct {
	*testing.T
	stage *stage
	trace explore.Trace[event]
	seen  map[uint64]struct{} // the result of each schedule

	steps   []event
	choices []int
	runs    int // schedules that were run to their end
	calls   int // steps of all schedules
	givenUp int // schedules that had been seen in another order
}

func (e *explorer) explore() {
	depth, n := e.stage.play.depth+*exploreDepth, *exploreN
	switch {
	case raceDetector: // with it, each schedule takes twenty times as long
		depth, n = 2, 50
	case testing.Short():
		depth, n = 4, 100
	}
	search := &explore.Search[event]{Depth: depth}
	for seed := *exploreSeed; !e.Failed(); seed++ {
		e.run(search, seed)
		if !search.Next() {
			break
		}
	}
	enumerated := e.runs
	known := len(e.seen)
	for i := range n {
		if e.Failed() {
			break
		}
		if i%1000 == 999 {
			if len(e.seen)-known < 250 {
				break // most have been seen
			}
			known = len(e.seen)
		}
		e.run(new(explore.Search[event]), *exploreSeed+uint64(i))
	}
	e.Logf("%d schedules, %d of them distinct: all to depth %d (%d, and %d given up as seen), and %d at random; %d steps",
		e.runs, len(e.seen), depth, enumerated, e.givenUp, e.runs-enumerated, e.calls)
}

// replay runs one schedule.
func (e *explorer) replay(choices string) {
	var list []int
	for _, c := range strings.Split(choices, ".") {
		n, err := strconv.Atoi(c)
		if err != nil {
			e.Fatal(err)
		}
		list = append(list, n)
	}
	e.schedule(func(events []event) (int, bool, error) {
		if len(e.choices) >= len(list) {
			return 0, true, nil // the code has changed, and the schedule has become longer
		}
		if list[len(e.choices)] >= len(events) {
			return 0, false, errors.New("the schedule is from another version: it has a choice that does not exist")
		}
		return list[len(e.choices)], true, nil
	})
	e.Logf("replayed:\n%s%s", e.story(), e.stage.audit.lines())
}

func (e *explorer) run(search *explore.Search[event], seed uint64) {
	search.Begin(seed)
	if !e.schedule(search.Choose) {
		e.givenUp++
		return
	}
	e.runs++
	e.seen[e.trace.Sum()] = struct{}{}
}

// mostSteps is more than any schedule needs.
const mostSteps = 1000

// schedule runs one schedule, and reports whether it was run to its end.
func (e *explorer) schedule(choose func([]event) (int, bool, error)) bool {
	s := e.stage
	s.reset()
	s.begin()
	e.trace.Reset()
	e.steps, e.choices = e.steps[:0], e.choices[:0]
	whole := true
	for whole {
		quiesce()
		events := s.events()
		if len(events) == 0 {
			break
		}
		i, ok, err := choose(events)
		if err != nil || len(e.choices) == mostSteps {
			s.audit.badf("after %d steps: %v", len(e.choices), err)
		}
		if whole = ok && err == nil && len(e.choices) < mostSteps; whole {
			e.step(events[i], i)
		}
	}
	if whole && s.ended < len(s.procs) {
		s.audit.badf("%d processes wait for ever", len(s.procs)-s.ended)
	}
	s.end()
	if whole {
		e.epilogue()
	}
	if report := s.audit.report(); report != "" {
		e.fail(report)
	}
	return whole
}

func (e *explorer) step(ev event, choice int) {
	e.calls++
	e.trace.Add(ev)
	e.choices = append(e.choices, choice)
	e.steps = append(e.steps, ev)
	e.stage.take(ev)
}

// epilogue is the end of each schedule: what writers were told is true, everything is
// intact, and after another process has taken over, there is no garbage left.
func (e *explorer) epilogue() {
	s, next := e.stage, e.stage.anyone
	s.audit.end()
	list, err := next.task.List(context.Background())
	next.check("what is retained", err, checkpoint.ErrNoCheckpoint)
	for _, c := range list {
		if err := s.audit.wantWhole(context.Background(), c); err != nil {
			next.bad("checkpoint %d: %v", c.Seq, err)
		}
	}
	next.claim()
	next.commit(small)
	next.close()
	next.collect()
	s.audit.wantExact()
}

// story describes the steps of the present schedule.
func (e *explorer) story() string {
	var b strings.Builder
	for _, ev := range e.steps {
		fmt.Fprintln(&b, e.stage.String(ev))
	}
	return b.String()
}

func (e *explorer) fail(report string) {
	var choices []string
	for _, c := range e.choices {
		choices = append(choices, strconv.Itoa(c))
	}
	e.Errorf("schedule %d:\n%s%s\nRun it again with\n\tgo test ./checkpoint -run 'TestExplore/%s$' -explore.replay=%s:%s",
		e.runs+1, e.story(), report, e.stage.play.name, e.stage.play.name, strings.Join(choices, "."))
}
