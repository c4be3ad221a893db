package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// forks is how many names of forks there are. Each is used again and again.
const forks = 3

func forkName(i int) string { return fmt.Sprintf("try/%d", i) }

func isFork(task string) bool { return strings.HasPrefix(task, "try/") }

// fork makes forks of tasks, one at a time, goes on with each for a while, and deletes it.
func (p *process) fork(ctx context.Context) {
	for i := 0; p.pause(time.Second); i++ {
		p.forkOnce(ctx, forkName(i%forks))
	}
}

// forkOnce is the life of one fork, in a job of its own. What fails for the network ends it
// early; the next use of its name deletes what is left.
func (p *process) forkOnce(ctx context.Context, name string) {
	job := p.open(ctx)
	defer func() { _ = job.Close(context.WithoutCancel(ctx)) }()
	r := p.records[p.rnd.IntN(len(p.records))]
	source, err := job.Task(r.task)
	if err != nil {
		panic(err) // the name is a good one
	}
	fork, err := job.Task(name)
	if err != nil {
		panic(err) // likewise
	}
	if !p.deleteFork(ctx, r, fork) {
		return
	}
	f := &forkLife{process: p, record: r, task: fork}
	if f.make(ctx, source) && f.goOn(ctx) {
		f.wantNewest(ctx)
	}
	p.deleteFork(ctx, r, fork)
}

// deleteFork deletes a fork, if it is there.
func (p *process) deleteFork(ctx context.Context, r *record, fork *checkpoint.Task) bool {
	_, err := fork.Delete(ctx, checkpoint.DeleteOptions{Fence: true})
	if errors.Is(err, checkpoint.ErrNoCheckpoint) && !errors.Is(err, checkpoint.ErrUnknown) {
		return true
	}
	return p.told(r, "deletions of forks", err) == done
}

// A forkLife is one life of a fork. Nobody else writes to it.
type forkLife struct {
	*process
	record *record // of the source
	task   *checkpoint.Task
	newest string          // the attempt that was committed last
	maybe  map[string]bool // those after it of which that is not known
}

// make makes the fork of the newest checkpoint, or of another one that there is, and makes
// sure that it has that one's state.
func (f *forkLife) make(ctx context.Context, source *checkpoint.Task) bool {
	var opts checkpoint.ForkOptions
	want := ""
	if list, err := source.List(ctx); err == nil && len(list) > 0 && f.rnd.IntN(2) == 0 {
		c := list[f.rnd.IntN(len(list))]
		opts.At, want = checkpoint.Seq(c.Seq), c.Offsets["in"]
	}
	seq, err := source.Fork(ctx, f.task.Name(), opts)
	// An earlier fork of the name, which was in doubt, may have come to be meanwhile.
	if f.told(f.record, "forks", err, checkpoint.ErrConflict) != done {
		return false
	}
	c, s := f.read(ctx)
	if s == nil {
		return false
	}
	if c.Seq != seq || want != "" && s.Attempt != want {
		f.record.badf("fork %s is checkpoint %d of attempt %s; want %d of %q", f.task.Name(), c.Seq, s.Attempt, seq, want)
	}
	f.record.isAttempt(s)
	f.newest, f.maybe = s.Attempt, make(map[string]bool)
	return true
}

// read reads the fork's newest checkpoint. It returns nil if that fails for the network.
func (f *forkLife) read(ctx context.Context) (*checkpoint.Checkpoint, *state) {
	c, err := f.task.Latest(ctx)
	if errors.Is(err, checkpoint.ErrNoCheckpoint) {
		f.record.badf("%s: fork %s was made, and nobody has deleted it: %v", f.name, f.task.Name(), err)
		return nil, nil
	}
	if !f.expect(f.record, "read of a fork", err) {
		return nil, nil
	}
	fsys, err := c.FS(ctx)
	var s *state
	if err == nil {
		s, err = readState(fsys)
	}
	if !f.expect(f.record, "read of a fork", err) {
		return nil, nil
	}
	return c, s
}

// goOn lets an owner of the fork commit a few times, and sometimes detaches the fork then.
func (f *forkLife) goOn(ctx context.Context) bool {
	o, err := f.task.Claim(ctx, checkpoint.ClaimOptions{})
	if !f.expect(f.record, "claim of a fork", err) {
		return false
	}
	defer func() { _ = o.Close(context.WithoutCancel(ctx)) }()
	if _, err := o.Resume(ctx, f.dir); !f.expect(f.record, "restore of a fork", err) {
		return false
	}
	s, err := readState(os.DirFS(f.dir))
	if err != nil || s.Attempt != f.newest {
		f.record.badf("fork %s, restored: %+v, %v; want attempt %s", f.task.Name(), s, err, f.newest)
		return false
	}
	for range 1 + f.rnd.IntN(2*keepLast) {
		if !f.commit(ctx, o, s) {
			return false
		}
	}
	if f.rnd.IntN(3) > 0 {
		return true
	}
	_, err = f.task.Detach(ctx, checkpoint.DetachOptions{Fence: true})
	return f.told(f.record, "detachments", err) == done
}

// commit changes the fork's state and commits it.
func (f *forkLife) commit(ctx context.Context, o *checkpoint.Owner, s *state) bool {
	f.attempts++
	before := append([]int(nil), s.Versions...)
	s.change(f.rnd, fmt.Sprintf("%s-%d", f.name, f.attempts))
	if err := s.write(f.dir, before); err != nil {
		f.Error(err)
		return false
	}
	_, err := o.Commit(ctx, checkpoint.Snapshot{Offsets: map[string]string{"in": s.Attempt}, State: checkpoint.Dir(f.dir)})
	switch f.told(f.record, "commits in forks", err) {
	case done:
		f.newest, f.maybe = s.Attempt, make(map[string]bool)
	case doubtful:
		f.maybe[s.Attempt] = true
	}
	return true
}

// wantNewest makes sure that the fork's newest checkpoint is what was acknowledged last, or
// came after it.
func (f *forkLife) wantNewest(ctx context.Context) {
	c, s := f.read(ctx)
	if s != nil && s.Attempt != f.newest && !f.maybe[s.Attempt] {
		f.record.badf("fork %s: checkpoint %d is of attempt %s; %s was acknowledged last", f.task.Name(), c.Seq, s.Attempt, f.newest)
	}
}

// endForks deletes what is left of forks, and makes sure that it is all gone but for
// manifests. A fork that was never made ends with another one of its name: then its number
// is taken.
func (s *soak) endForks(job *checkpoint.Job) {
	for i := range forks {
		name := forkName(i)
		task, err := job.Task(name)
		if err != nil {
			s.Fatal(err)
		}
		if source := s.aSource(job); source != nil {
			if _, err := source.Fork(s.Context(), name, checkpoint.ForkOptions{}); err != nil && !errors.Is(err, checkpoint.ErrConflict) {
				s.Errorf("fork %s in the end: %v", name, err)
			}
		}
		if _, err := task.Delete(s.Context(), checkpoint.DeleteOptions{Fence: true}); err != nil {
			s.Errorf("deletion of %s in the end: %v", name, err)
		}
		if _, err := task.Collect(s.Context(), checkpoint.CollectOptions{}); err != nil {
			s.Errorf("collection of %s in the end: %v", name, err)
		}
	}
}

// aSource returns a task that has a checkpoint.
func (s *soak) aSource(job *checkpoint.Job) *checkpoint.Task {
	for _, r := range s.records {
		task, err := job.Task(r.task)
		if err != nil {
			s.Fatal(err)
		}
		if r.atLeast() > 0 {
			return task
		}
	}
	return nil
}
