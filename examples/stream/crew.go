package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A crew is the workers, and what this process knows of them. Its methods may be called from
// several goroutines.
type crew struct {
	settings settings // of the next worker
	dir      string   // below which each worker has a directory
	fail     context.CancelCauseFunc
	patience time.Duration  // how long it waits for one thing at most; 0 for ever
	ended    sync.WaitGroup // of the workers that were started

	mu         sync.Mutex
	changed    chan struct{} // closed at the next change
	partitions []*partition
	workers    []*worker // that live
	free       []string  // directories of workers that have ended; the next one takes one over
	started    int
	commits    int
	restores   int
	replayed   int             // events that were counted again
	pauses     []time.Duration // of the loops, for cuts
	wrong      []string        // what the store should never have done
}

// A partition is what is known of one.
type partition struct {
	owner   *worker  // who works on it, as far as is known; nil for nobody
	begun   bool     // somebody has worked on it, and may have come to its end
	counted int      // events that its owner has counted
	acked   struct { // the newest checkpoint that anyone was told of
		seq     uint64
		counted int
		next    uint64
		at      time.Time
	}
	from   int     // events that the checkpoint counts which its owner went on from
	reigns []reign // of those who have committed
}

// A reign is what one epoch of a partition has committed.
type reign struct {
	epoch uint64
	by    *worker
	from  uint64 // the checkpoint that it went on from; 0 for none
	last  uint64 // its newest one
}

// A worker is a process.
type worker struct {
	id      int
	dir     string
	cmd     *exec.Cmd
	stdin   io.Closer      // the worker ends with it, also when this process is gone
	tasks   map[int]bool   // partitions that it works on
	from    map[int]uint64 // by partition: the checkpoint that it went on from when it last began
	commits map[int]bool   // of these, those with a commit under way
	fenced  int            // commits of it that were refused
	fate    fate
	gone    bool
}

// A fate is what this process is about to do to a worker.
type fate string

const (
	working fate = ""
	killed  fate = "killed"
	paused  fate = "paused"
	zombie  fate = "zombie" // it was paused for longer than its leases, and does not know it yet
	leaving fate = "leaving"
)

func newCrew(s settings, dir string, fail context.CancelCauseFunc) *crew {
	c := &crew{settings: s, dir: dir, fail: fail, changed: make(chan struct{})}
	for range s.Partitions {
		c.partitions = append(c.partitions, &partition{})
	}
	return c
}

// change does something to what is known, and tells those who wait in until.
func (c *crew) change(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do()
	close(c.changed)
	c.changed = make(chan struct{})
}

// look reads what is known.
func (c *crew) look(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do()
}

var errPatience = errors.New("it takes too long; the logs of the workers are below -dir")

// until waits until something is so, and what says what. is is called while nothing changes.
func (c *crew) until(ctx context.Context, what string, is func() bool) error {
	if c.patience > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, c.patience, fmt.Errorf("after %v %w", c.patience, errPatience))
		defer cancel()
		ctx = limited
	}
	for {
		c.mu.Lock()
		done, changed := is(), c.changed
		c.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, context.Cause(ctx))
		}
	}
}

// start starts another worker: this program, with its settings in the environment. It may get
// the directory of one that has ended, where it finds what it need not fetch.
func (c *crew) start() (*worker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &worker{tasks: make(map[int]bool), from: make(map[int]uint64), commits: make(map[int]bool)}
	s := c.settings
	c.look(func() {
		c.started++
		w.id = c.started
		if n := len(c.free); n > 0 {
			w.dir, c.free = c.free[n-1], c.free[:n-1]
		} else {
			w.dir = filepath.Join(c.dir, strconv.Itoa(w.id))
		}
	})
	s.Worker, s.Dir = w.id, w.dir
	encoded, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	w.cmd = exec.Command(self)
	w.cmd.Env = append(os.Environ(), workerEnv+"="+string(encoded))
	w.cmd.Stderr = os.Stderr
	pipe, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if w.stdin, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	c.change(func() { c.workers = append(c.workers, w) })
	c.ended.Go(func() {
		var n note
		for dec := json.NewDecoder(pipe); dec.Decode(&n) == nil; n = (note{}) {
			c.change(func() { c.note(w, n) })
		}
		_ = pipe.Close() // a worker that says something else must not wait for a reader
		err := w.cmd.Wait()
		c.end(w, w.cmd.ProcessState.ExitCode(), err)
	})
	return w, nil
}

// end takes note of the end of a worker.
func (c *crew) end(w *worker, code int, err error) {
	c.change(func() {
		w.gone = true
		c.workers = slices.DeleteFunc(c.workers, func(other *worker) bool { return other == w })
		c.free = append(c.free, w.dir)
		for p := range w.tasks {
			c.leave(w, p)
		}
		if !c.wasAsked(w.fate, code) {
			c.fail(fmt.Errorf("worker %d ended by itself (its log is below -dir): %w", w.id, cmp.Or(err, errNotAsked)))
		}
	})
}

// wasAsked reports whether a worker that ended with a code did so because it was to end. One that
// failed did not, though it was about to be killed.
func (c *crew) wasAsked(f fate, code int) bool {
	switch {
	case code == failed:
		return false
	case f == killed:
		return true
	case f == leaving:
		return code == 0 || !canPause // where it was killed instead
	}
	return c.settings.Fixed && code == 0
}

var errNotAsked = errors.New("nobody had asked it to")

// note takes down what a worker tells. The caller holds c.mu.
func (c *crew) note(w *worker, n note) {
	at, err := partitionOf(n.Task)
	if err != nil || at < 0 || at >= len(c.partitions) {
		c.fail(fmt.Errorf("worker %d tells of task %q: %w", w.id, n.Task, err))
		return
	}
	p := c.partitions[at]
	switch n.Op {
	case open:
		c.opened(w, p, at, n)
	case count:
		if p.owner == nil { // one that was slow to learn that it is not the owner has told of that late
			p.owner = w
		}
		if p.owner == w {
			p.counted = n.Counted
		}
	case cut:
		w.commits[at] = true
	case pause:
		c.pauses = append(c.pauses, n.Took)
	case commit:
		delete(w.commits, at)
		c.committed(w, p, at, n)
	case fenced:
		delete(w.commits, at)
		w.fenced++
	case closed:
		c.leave(w, at)
	}
}

// opened is told that a worker goes on with a partition.
func (c *crew) opened(w *worker, p *partition, at int, n note) {
	w.tasks[at], w.from[at] = true, n.Seq
	if n.Seq > 0 {
		c.restores++
		c.replayed += max(0, p.counted-n.Counted)
	}
	p.owner, p.begun, p.counted, p.from = w, true, n.Counted, n.Counted
}

// committed is told that a worker was told that a commit is durable.
func (c *crew) committed(w *worker, p *partition, at int, n note) {
	c.commits++
	if n.Seq > p.acked.seq {
		p.acked.seq, p.acked.counted, p.acked.next, p.acked.at = n.Seq, n.Counted, n.Next, time.Now()
	}
	i := slices.IndexFunc(p.reigns, func(r reign) bool { return r.epoch == n.Epoch })
	if i < 0 {
		i = len(p.reigns)
		p.reigns = append(p.reigns, reign{epoch: n.Epoch, by: w, from: w.from[at]})
	}
	r := &p.reigns[i]
	r.last = max(r.last, n.Seq)
	if r.by != w {
		c.isWrong("%s: workers %d and %d have both committed in epoch %d", n.Task, r.by.id, w.id, r.epoch)
	}
	for _, other := range p.reigns {
		c.compare(n.Task, *r, other)
	}
}

// compare makes sure that the later of two reigns has gone on from all that the earlier one has
// committed: nothing that was committed is lost, and nothing is committed by a worker that has
// been replaced. It does not matter in which order the notes of two workers come.
func (c *crew) compare(task string, a, b reign) {
	if a.epoch > b.epoch {
		a, b = b, a
	}
	if a.epoch < b.epoch && a.last > b.from {
		c.isWrong("%s: worker %d has committed checkpoint %d in epoch %d; worker %d, in epoch %d, went on from checkpoint %d",
			task, a.by.id, a.last, a.epoch, b.by.id, b.epoch, b.from)
	}
}

func (c *crew) isWrong(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// leave takes note that a worker does not work on a partition any more.
func (c *crew) leave(w *worker, at int) {
	delete(w.tasks, at)
	delete(w.commits, at)
	if p := c.partitions[at]; p.owner == w {
		p.owner = nil
	}
}

// kill ends a worker as hard as the system can: on Unix, with SIGKILL.
func (c *crew) kill(w *worker) {
	c.change(func() { w.fate = killed })
	_ = w.cmd.Process.Kill() // it fails only if the process has ended
}

// killAll ends all workers that live, and waits for them.
func (c *crew) killAll() {
	var all []*worker
	c.look(func() { all = slices.Clone(c.workers) })
	for _, w := range all {
		c.kill(w)
	}
	c.ended.Wait()
}

// ask asks a worker to end: it makes its last commits and gives its partitions back.
func (c *crew) ask(w *worker) error {
	c.change(func() { w.fate = leaving })
	if err := askToEnd(w.cmd.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("worker %d: %w", w.id, err)
	}
	return nil
}

// idle returns the workers to whom nothing is being done. The caller holds c.mu.
func (c *crew) idle() (idle []*worker) {
	for _, w := range c.workers {
		if w.fate == working {
			idle = append(idle, w)
		}
	}
	return idle
}

// restoredAll reports whether each partition has an owner. The caller holds c.mu.
func (c *crew) restoredAll() bool {
	return !slices.ContainsFunc(c.partitions, func(p *partition) bool { return p.owner == nil })
}

// begunAll reports whether each partition has had an owner: with a small input, the first may be
// done before the last is restored. The caller holds c.mu.
func (c *crew) begunAll() bool {
	return !slices.ContainsFunc(c.partitions, func(p *partition) bool { return !p.begun })
}

// counted returns how many events were counted. The caller holds c.mu.
func (c *crew) counted() (n int) {
	for _, p := range c.partitions {
		n += p.counted
	}
	return n
}
