package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// A life is one process of the job, from its start to its end.
type life struct {
	story  *story
	cmd    *exec.Cmd
	events chan event // closed at the end
	begun  time.Time

	underWay map[op][]time.Time      // since when
	resumed  map[string]checkpointed // where each task went on; one that is not in it did not get so far
	restores map[string]uint64       // which checkpoint each task goes on from
	commits  int
	replayed int64
	killed   bool
	lasted   time.Duration
	done     bool // it came to its own end
}

// start starts the job: this program, with its settings in the environment.
func (s *story) start(ctx context.Context) (*life, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(s.settings)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), jobEnv+"="+string(encoded))
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l := &life{
		story: s, cmd: cmd, events: make(chan event), begun: time.Now(),
		underWay: make(map[op][]time.Time),
		resumed:  make(map[string]checkpointed), restores: make(map[string]uint64),
	}
	go func() {
		defer close(l.events)
		var e event
		for dec := json.NewDecoder(pipe); dec.Decode(&e) == nil; e = (event{}) {
			l.events <- e
		}
		_ = pipe.Close() // a job that says something else must not wait for a reader
	}()
	return l, nil
}

var errJobFailed = errors.New("the job failed")

// watch follows the process to its end, which comes when a says so or, if a
// spares it, when the job is done. Any other end is an error.
func (l *life) watch(a aim) error {
	var strike, late <-chan time.Time
	if a.op != "" {
		late = time.After(time.Until(a.late))
	}
	for {
		select {
		case <-strike:
			strike = nil
			if len(l.underWay[a.op]) > 0 {
				l.kill()
			}
			a.point /= 2 // it was over sooner than usual: strike the next one earlier
		case <-late:
			l.kill()
		case e, more := <-l.events:
			if !more {
				return l.end()
			}
			l.note(e)
			if strike == nil && a.matches(e) {
				strike = time.After(time.Duration(a.point * float64(l.story.usual[a.op])))
			}
		}
	}
}

// kill ends the process as hard as the system can: on Unix, with SIGKILL.
func (l *life) kill() {
	_ = l.cmd.Process.Kill() // it fails only if the process has ended
	l.killed = true
}

func (l *life) end() error {
	err := l.cmd.Wait()
	l.lasted = time.Since(l.begun)
	l.done = err == nil
	switch {
	case l.cmd.ProcessState.ExitCode() == jobFailed:
		return errJobFailed
	case err != nil && !l.killed:
		return fmt.Errorf("the job ended by itself: %w", err)
	}
	return nil
}

// note takes down an event.
func (l *life) note(e event) {
	t := l.story.tasks[e.Task] // nil for a request to the store
	switch {
	case e.Op == count && !l.hasResumed(e.Task):
		from := checkpointed{l.restores[e.Task], e.At}
		l.resumed[e.Task] = from
		l.replayed += l.story.resumed(e.Task, from)
	case e.Op == count:
		t.reached = e.At
	case !e.End:
		l.underWay[e.Op] = append(l.underWay[e.Op], time.Now())
	default:
		// Of several that are under way, take the one that began first.
		began := l.underWay[e.Op][0]
		l.underWay[e.Op] = l.underWay[e.Op][1:]
		l.story.usual[e.Op] = time.Since(began)
	}
	switch {
	case e.Op == resume && e.End:
		l.restores[e.Task] = e.Seq
	case e.Op == commit && !e.End:
		t.inDoubt, t.reached = true, e.At
	case e.Op == commit:
		t.inDoubt, t.acked = false, checkpointed{e.Seq, e.At}
		l.commits++
		l.story.commits++
	}
}

func (l *life) hasResumed(task string) bool {
	_, ok := l.resumed[task]
	return ok
}

// struck returns what was under way when the life ended.
func (l *life) struck() []op {
	return slices.DeleteFunc(slices.Clone(ops), func(o op) bool { return len(l.underWay[o]) == 0 })
}

// restored lists the checkpoints that the tasks went on from.
func (l *life) restored() string {
	list := make([]string, len(l.story.corpus.partitions))
	for i, p := range l.story.corpus.partitions {
		switch from, ok := l.resumed[p.name]; {
		case !ok:
			list[i] = "?" // it was killed before it had
		case from.seq == 0:
			list[i] = "-"
		default:
			list[i] = fmt.Sprintf("#%d", from.seq)
		}
	}
	return strings.Join(list, " ")
}

// resumedAt says how much had been counted by these checkpoints.
func (l *life) resumedAt() string {
	if len(l.resumed) < len(l.story.tasks) {
		return "?"
	}
	n := int64(0)
	for _, from := range l.resumed {
		n += from.at
	}
	return bytesOf(n)
}

// fate says how the life ended.
func (l *life) fate() string {
	lasted := l.lasted.Round(10 * time.Millisecond)
	if l.done {
		return fmt.Sprintf("done after %v", lasted)
	}
	var during []string
	for _, op := range l.struck() {
		during = append(during, string(op))
	}
	if len(during) == 0 {
		return fmt.Sprintf("killed after %v", lasted)
	}
	return fmt.Sprintf("killed after %v, during %s", lasted, strings.Join(during, ", "))
}
