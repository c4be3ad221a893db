package soak

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

const (
	// pruneLast is how many checkpoints a pruning keeps: fewer than owners do.
	pruneLast = keepLast - 2
	// mostNames bounds the savepoints of a task that the amender has added, and not removed.
	mostNames = 4
)

// A naming is a savepoint that was added by someone who is not the owner, and what came of
// that and of its removal.
type naming struct {
	name           string
	seq            uint64 // of the checkpoint, if it was added
	added, removed outcome
}

// An outcome is what a process was told of a change.
type outcome int

const (
	unasked outcome = iota
	refused         // it was not made, and never will be
	doubtful
	done
)

// outcomeOf says what err tells of a change. What failed before it was sent, or was
// refused, is not made.
func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return done
	case errors.Is(err, checkpoint.ErrUnknown):
		return doubtful
	}
	return refused
}

// amend changes tasks beside their owners.
func (p *process) amend(ctx context.Context) {
	job := p.open(ctx)
	defer func() { _ = job.Close(context.WithoutCancel(ctx)) }()
	for p.pause(200 * time.Millisecond) {
		r := p.records[p.rnd.IntN(len(p.records))]
		task, err := job.Task(r.task)
		if err != nil {
			panic(err) // the name is a good one
		}
		switch n := p.rnd.IntN(8); {
		case n < 4 && len(r.present()) < mostNames:
			p.addSavepoint(ctx, r, task)
		case n < 6:
			p.removeSavepoint(ctx, r, task)
		case n < 7:
			p.annotate(ctx, r, task)
		default:
			p.prune(ctx, r, task)
		}
	}
}

// told counts a change, and fails the test if its error is none that may be.
func (p *process) told(r *record, what string, err error, allowed ...error) outcome {
	p.Helper()
	o := outcomeOf(err)
	if o == doubtful {
		p.add(what+" of unknown outcome", 1)
		return o
	}
	if p.expect(r, what, err, append(allowed, checkpoint.ErrNoCheckpoint, checkpoint.ErrGone)...) {
		p.add(what, 1)
	}
	return o
}

// addSavepoint names the newest checkpoint, or another one that there is.
func (p *process) addSavepoint(ctx context.Context, r *record, task *checkpoint.Task) {
	p.attempts++
	n := &naming{name: fmt.Sprintf("%s-%d", p.name, p.attempts), added: doubtful}
	var opts checkpoint.SavepointOptions
	if list, err := task.List(ctx); err == nil && len(list) > 0 && p.rnd.IntN(2) == 0 {
		opts.At = checkpoint.Seq(list[p.rnd.IntN(len(list))].Seq)
	}
	r.beginNaming(n)
	seq, err := task.AddSavepoint(ctx, n.name, opts)
	o := p.told(r, "savepoints added by others", err, checkpoint.ErrConflict)
	r.mu.Lock()
	defer r.mu.Unlock()
	n.seq, n.added = seq, o
}

// removeSavepoint removes a savepoint that was added.
func (p *process) removeSavepoint(ctx context.Context, r *record, task *checkpoint.Task) {
	list := r.present()
	if len(list) == 0 {
		return
	}
	n := list[p.rnd.IntN(len(list))]
	r.mu.Lock()
	n.removed = doubtful
	r.mu.Unlock()
	seq, err := task.RemoveSavepoint(ctx, n.name)
	if errors.Is(err, checkpoint.ErrNoCheckpoint) && !errors.Is(err, checkpoint.ErrUnknown) {
		r.badf("%s: savepoint %s was added, and not removed: %v", p.name, n.name, err)
	}
	o := p.told(r, "savepoints removed by others", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.removed = o; o == done && seq != n.seq {
		r.badf("%s: savepoint %s was checkpoint %d, and %d when it was removed", p.name, n.name, n.seq, seq)
	}
}

func (p *process) annotate(ctx context.Context, r *record, task *checkpoint.Task) {
	p.attempts++
	_, err := task.Annotate(ctx, checkpoint.Ref{}, checkpoint.Note{Author: p.name, Text: fmt.Sprint(p.attempts)})
	p.told(r, "notes", err)
}

func (p *process) prune(ctx context.Context, r *record, task *checkpoint.Task) {
	_, err := task.Prune(ctx, checkpoint.Retention{Last: pruneLast}, checkpoint.PruneOptions{})
	p.told(r, "prunings", err)
}

// beginNaming notes that a savepoint is to be added.
func (r *record) beginNaming(n *naming) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.namings = append(r.namings, n)
}

// present returns the savepoints that were added, and whose removal was not asked for or was
// refused.
func (r *record) present() (list []*naming) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.namings {
		if n.added == done && n.removed <= refused {
			list = append(list, n)
		}
	}
	return list
}
