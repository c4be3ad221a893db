package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

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
	defer func() { _ = job.Close(context.WithoutCancel(ctx)) }()
	defer p.net.down.Store(false)
	o, err := claim(ctx, job, r.task)
	if !p.expect(r, "claim", err) {
		return
	}
	defer func() { _ = o.Close(context.WithoutCancel(ctx)) }() // what it leaves is collected
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
	p.add("clean-ups that failed", o.CleanupFailures())
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

// A life is that of an owner.
type life struct {
	*process
	record *record
	owner  *checkpoint.Owner
	state  *state
	on     string // the newest attempt that is known to be committed
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
	before := slices.Clone(l.state.Versions)
	l.attempts++
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
