package soak

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// read reads checkpoints of tasks by chance.
func (p *process) read(ctx context.Context) {
	job := p.open(ctx)
	defer func() { _ = job.Close(context.WithoutCancel(ctx)) }()
	for p.pause(300 * time.Millisecond) {
		r := p.records[p.rnd.IntN(len(p.records))]
		task, err := job.Task(r.task)
		if err != nil {
			panic(err) // the name is a good one
		}
		least := r.atLeast()
		if p.rnd.IntN(3) == 0 {
			p.readOld(ctx, r, task)
			continue
		}
		c, err := task.Latest(ctx)
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
	list, err := task.List(ctx)
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
	defer func() { _ = job.Close(context.WithoutCancel(ctx)) }()
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
			if report.Err() != nil || len(report.OtherObjects) > 0 {
				r.badf("verified while others go on: %v, beside %v", report.Problems, report.OtherObjects)
			}
		}
	}
}
