package soak

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// keepLast is how many checkpoints of a task stay, besides savepoints.
const keepLast = 5

var options = checkpoint.Options{
	SegmentSize: 64 << 10, Retention: checkpoint.Retention{Last: keepLast}, Logger: slog.New(slog.DiscardHandler),
	// Half a second in all, so that an outage is longer than some have patience.
	Backoff: backend.Backoff{First: 20 * time.Millisecond, Max: 200 * time.Millisecond, Attempts: 6},
}

// A process has a network, a job and a directory of its own. It is one goroutine.
type process struct {
	*testing.T
	*tally
	name    string
	net     *network
	url     string          // of the job, by way of net
	rnd     *rand.Rand      // what it does
	dir     string          // the state's
	over    <-chan struct{} // closed when the soak is
	records []*record       // of all tasks
	truth   *checkpoint.Job // by a network without faults

	attempts, troubles int
}

// pause waits for as long as chance says, or until the soak is over. It reports
// whether the soak goes on.
func (p *process) pause(longest time.Duration) bool {
	t := time.NewTimer(upTo(p.rnd, longest))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.over:
		return false
	}
}

// expect fails the test unless an error is one of those allowed, or one that the
// network, or an end of patience, can be the cause of. It reports whether there
// is none.
func (p *process) expect(r *record, what string, err error, allowed ...error) bool {
	p.Helper()
	if err == nil {
		return true
	}
	for _, a := range allowed {
		if errors.Is(err, a) {
			p.add(what+": "+a.Error(), 1)
			return false
		}
	}
	if !networkFailed(err) {
		r.badf("%s: %s: %v", p.name, what, err)
	}
	p.add(what+" that failed for the network", 1)
	return false
}

func networkFailed(err error) bool {
	for _, e := range []error{checkpoint.ErrCorrupt, checkpoint.ErrVersion, checkpoint.ErrGone, checkpoint.ErrNoCheckpoint, checkpoint.ErrFenced, checkpoint.ErrConflict} {
		if errors.Is(err, e) {
			return false
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	return errors.As(err, new(*backend.Error)) && backend.Retryable(err)
}

// open opens the job anew.
func (p *process) open(ctx context.Context) *checkpoint.Job {
	job, err := checkpoint.Open(ctx, p.url, options)
	if err != nil {
		p.Fatal(err) // it sends no request
	}
	return job
}

// own lets the process be the owner of a task, again and again.
func (p *process) own(ctx context.Context, r *record) {
	for p.pause(2 * time.Second) {
		p.life(ctx, r)
	}
}

// life is one life of an owner: it claims, goes on from what there is, and
// commits until it is fenced, has had enough, or dies.
func (p *process) life(ctx context.Context, r *record) {
	ctx, die := context.WithCancel(ctx)
	defer die()
	job := p.open(ctx)
	defer job.Close()
	defer p.net.down.Store(false)
	o, err := job.Claim(ctx, r.task)
	if !p.expect(r, "claim", err) {
		return
	}
	defer o.Close()
	p.add("claims", 1)
	if r.hasClaimed(o.Epoch()) {
		p.add("takeovers", 1)
	}
	l, ok := p.resume(ctx, r, o)
	for n := 5 + p.rnd.IntN(60); ok && n > 0 && p.pause(150*time.Millisecond); n-- {
		ok = l.commit(ctx, die)
	}
	if ok && p.rnd.IntN(3) == 0 {
		if p.expect(r, "release", o.Release(ctx), checkpoint.ErrFenced) {
			p.add("releases", 1)
		}
	}
	p.add("clean-ups that failed", o.CleanUpFailures())
}

// resume makes the process's directory the state to go on from.
func (p *process) resume(ctx context.Context, r *record, o *checkpoint.Owner) (*life, bool) {
	c, err := o.Resume(ctx, p.dir)
	if err != nil {
		p.gone(ctx, r, err, c)
		return nil, p.expect(r, "restore", err, checkpoint.ErrGone)
	}
	l := &life{process: p, record: r, owner: o, state: new(state)}
	if c.Seq == 0 {
		return l, true
	}
	p.add("restores", 1)
	if l.state, err = readState(os.DirFS(p.dir)); err != nil {
		r.badf("%s: checkpoint %d, restored: %v", p.name, c.Seq, err)
		return nil, false
	}
	r.found(c, l.state)
	l.on = l.state.Attempt
	return l, true
}

// gone makes sure that a checkpoint has been retired, if an error says so.
func (p *process) gone(ctx context.Context, r *record, err error, c *checkpoint.Checkpoint) {
	if !errors.Is(err, checkpoint.ErrGone) {
		return
	}
	p.add("ErrGone", 1)
	if c == nil {
		return // it is not known which
	}
	task, err := p.truth.Task(r.task)
	if err != nil {
		p.Fatal(err)
	}
	list, err := task.Checkpoints(ctx)
	if err != nil {
		r.badf("which checkpoints there are: %v", err)
	}
	for _, other := range list {
		if other.Seq == c.Seq {
			r.badf("%s: checkpoint %d is said to be gone, and is retained", p.name, c.Seq)
		}
	}
}

// A life is that of an owner.
type life struct {
	*process
	record *record
	owner  *checkpoint.Owner
	state  *state
	on     string // the newest attempt that is known to be committed
	ended  bool
}

// A trouble befalls an owner in one of eight commits, in turn.
type trouble string

const (
	impatience trouble = "owners whose context ended in a commit"
	outage     trouble = "owners cut off in a commit"
	sleep      trouble = "owners that slept"
	death      trouble = "owners that died in a commit"
)

var troubles = []trouble{impatience, outage, sleep, death}

func (l *life) trouble() trouble {
	l.attempts++
	if l.attempts%8 != 0 {
		return ""
	}
	l.troubles++
	t := troubles[l.troubles%len(troubles)]
	l.add(string(t), 1)
	return t
}

// commit changes the state and commits it. It returns false when the owner is of
// no more use.
func (l *life) commit(ctx context.Context, die func()) bool {
	before := append([]int(nil), l.state.Versions...)
	a := &attempt{name: fmt.Sprintf("%s-%d", l.name, l.attempts), on: l.on, epoch: l.owner.Epoch()}
	l.state.change(l.rnd, a.name)
	if err := l.state.write(l.dir, before); err != nil {
		l.Error(err)
		return false
	}
	if l.rnd.IntN(60) == 0 {
		a.savepoint = "at " + a.name
	}
	commit, cancel := context.WithCancel(ctx)
	defer cancel()
	kind := l.trouble()
	switch kind {
	case impatience:
		defer time.AfterFunc(upTo(l.rnd, 60*time.Millisecond), cancel).Stop()
	case outage:
		defer l.cutOff(upTo(l.rnd, 20*time.Millisecond), 100*time.Millisecond+upTo(l.rnd, 2*time.Second))()
	case sleep:
		l.pause(4 * time.Second)
	case death:
		defer l.cutOff(upTo(l.rnd, 60*time.Millisecond), 0)()
		defer time.AfterFunc(200*time.Millisecond, die).Stop()
	}
	l.record.begin(a)
	c, err := l.owner.Commit(commit, checkpoint.Snapshot{
		Offsets: map[string]string{"in": a.name}, State: checkpoint.Dir(l.dir), Savepoint: a.savepoint,
	})
	l.record.tell(a, c, err)
	if kind == death {
		die()
		l.net.down.Store(true) // until the end of this life
	}
	return l.heard(ctx, a, c, err) && kind != death
}

// cutOff cuts the process off after a while, and for a while if that is not 0.
// What it returns ends it if it has not begun.
func (l *life) cutOff(after, lasts time.Duration) (stop func() bool) {
	begin := time.AfterFunc(after, func() { l.net.down.Store(true) })
	if lasts > 0 {
		time.AfterFunc(after+lasts, func() { l.net.down.Store(false) })
	}
	return begin.Stop
}

// heard goes by what the owner was told.
func (l *life) heard(ctx context.Context, a *attempt, c *checkpoint.Checkpoint, err error) bool {
	switch {
	case err == nil:
		l.add("commits", 1)
		l.add("bytes that were new in commits", c.NewBytes)
		if c.NewBytes <= 16<<10 {
			l.add("commits of one request", 1)
		}
		l.on = a.name
		return true
	case errors.Is(err, checkpoint.ErrFenced):
		l.add("fenced", 1)
		l.add("commits of unknown outcome", b2i(errors.Is(err, checkpoint.ErrUnknown)))
		if _, again := l.owner.Commit(ctx, checkpoint.Snapshot{}); !errors.Is(again, checkpoint.ErrFenced) {
			l.record.badf("%s was fenced, and is then told %v", l.name, again)
		}
		return false
	case errors.Is(err, checkpoint.ErrUnknown):
		l.add("commits of unknown outcome", 1)
		return true
	}
	l.expect(l.record, "commit", err)
	return true
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// read reads checkpoints of tasks by chance.
func (p *process) read(ctx context.Context) {
	job := p.open(ctx)
	defer job.Close()
	for p.pause(300 * time.Millisecond) {
		r := p.records[p.rnd.IntN(len(p.records))]
		task, err := job.Task(r.task)
		if err != nil {
			p.Fatal(err)
		}
		least := r.atLeast()
		if p.rnd.IntN(3) == 0 {
			p.readOld(ctx, r, task)
			continue
		}
		c, err := task.Newest(ctx)
		if least == 0 && errors.Is(err, checkpoint.ErrNoCheckpoint) {
			continue // nothing was acknowledged yet
		}
		if !p.expect(r, "read of the newest", err, checkpoint.ErrGone) {
			continue
		}
		if c.Seq < least {
			r.badf("%s: the newest is %d, and %d had been acknowledged", p.name, c.Seq, least)
		}
		p.restore(ctx, r, c)
	}
}

// restore restores into a directory that has an earlier state, of whatever task.
func (p *process) restore(ctx context.Context, r *record, c *checkpoint.Checkpoint) {
	err := c.Restore(ctx, p.dir, checkpoint.RestoreOptions{Replace: true})
	p.gone(ctx, r, err, c)
	if !p.expect(r, "restore", err, checkpoint.ErrGone) {
		return
	}
	p.add("restores", 1)
	s, err := readState(os.DirFS(p.dir))
	if err != nil {
		r.badf("%s: checkpoint %d, restored: %v", p.name, c.Seq, err)
		return
	}
	r.found(c, s)
}

// readOld opens one of the checkpoints that there are, and reads it a while
// later, when it may be gone.
func (p *process) readOld(ctx context.Context, r *record, task *checkpoint.Task) {
	list, err := task.Checkpoints(ctx)
	if len(list) == 0 && errors.Is(err, checkpoint.ErrNoCheckpoint) || !p.expect(r, "list of checkpoints", err, checkpoint.ErrGone) || len(list) == 0 {
		return
	}
	c := list[p.rnd.IntN(len(list))]
	p.pause(2 * time.Second)
	fsys, err := c.FS(ctx)
	var s *state
	if err == nil {
		s, err = readState(fsys)
	}
	p.gone(ctx, r, err, c)
	if p.expect(r, "read of an older one", err, checkpoint.ErrGone) {
		p.add("reads of older checkpoints", 1)
		r.found(c, s)
	}
}

// collect collects and verifies all tasks, again and again.
func (p *process) collect(ctx context.Context) {
	job := p.open(ctx)
	defer job.Close()
	for p.pause(500 * time.Millisecond) {
		for task, err := range job.Tasks(ctx) {
			if !p.expect(p.records[0], "list of tasks", err) || !p.pause(200*time.Millisecond) {
				break
			}
			r := p.recordOf(task)
			done, err := task.Collect(ctx, checkpoint.CollectOptions{})
			p.add("segments collected by others than their owners", int64(done.Segments))
			if p.expect(r, "collection", err, checkpoint.ErrGone) {
				p.add("collections", 1)
			}
			report, err := task.Verify(ctx, checkpoint.VerifyOptions{Data: p.rnd.IntN(4) == 0})
			if !p.expect(r, "verification", err, checkpoint.ErrGone) {
				continue
			}
			p.add("verifications", 1)
			if report.Err() != nil || len(report.Foreign) > 0 {
				r.badf("verified while others go on: %v, foreign %v", report.Problems, report.Foreign)
			}
		}
	}
}

func (p *process) recordOf(task *checkpoint.Task) *record {
	for _, r := range p.records {
		if r.task == task.Name() {
			return r
		}
	}
	p.Fatalf("there is a task %q", task.Name())
	return nil
}
