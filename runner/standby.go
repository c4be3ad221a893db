package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// DefaultFollowInterval is the default of FollowSpec.Interval.
const DefaultFollowInterval = time.Second

// A FollowSpec says what a Standby keeps up to date. It needs no names of stores: those of
// the checkpoint are the directories in its state.
type FollowSpec struct {
	// Dir is the task's run directory on this host, as in [Spec]. It is locked for as long
	// as the task is followed.
	Dir string

	// State, if it is not nil, is where the state is once the task is promoted, as in [Spec].
	// Follow refuses what Own refuses, before anything is done; Adopt is for Own alone. While
	// the task is followed, nothing is there: what this task has left there is moved into Dir,
	// and kept up to date in it.
	State *StateDir

	// Interval is the time from one look at the store to the next: one cheap request, if
	// there is nothing new. Default 1 s.
	Interval time.Duration

	// Progress, if it is not nil, is told how a restore comes along, from several
	// goroutines.
	Progress func(p checkpoint.Progress)
}

func (s *FollowSpec) check(name string) error {
	switch {
	case s.Dir == "":
		return backend.Invalidf("runner: task %q has no directory: set FollowSpec.Dir", name)
	case s.State != nil && (s.State.Path == "" || s.State.Job == "" || s.State.Adopt):
		return backend.Invalidf("runner: task %q: set both Path and Job of FollowSpec.State, and not Adopt: a standby goes on from what the owner has committed", name)
	case s.Interval < 0:
		return backend.Invalidf("runner: task %q: FollowSpec.Interval is %v; set a positive time, or 0 for the default", name, s.Interval)
	}
	return nil
}

// A Standby keeps the run directory of a task that another process owns at the task's newest
// checkpoint, so that this process can take the task over at once. It claims nothing by
// itself. Its methods may be called from many goroutines at once.
type Standby struct {
	runner *Runner
	name   string
	spec   FollowSpec
	log    *slog.Logger
	task   *checkpoint.Task
	dir    *runDir

	ctx      context.Context // of all that it does; ends with Follow's, or when it is closed
	stop     context.CancelCauseFunc
	lookers  context.Context // of looks; ends before, if the task is promoted
	stopLook context.CancelFunc
	working  sync.WaitGroup // the goroutines that look, and that restore
	done     chan struct{}  // closed when the directory is free, or the task's
	closed   error          // for those who saw done

	looking chan struct{} // full during a look

	mu       sync.Mutex
	promoted bool
	changed  chan struct{} // closed, and replaced, after each look and each restore
	view     view
	waiting  int       // calls of Wait
	failing  bool      // the last look or restore has failed
	verdict  *uint64   // the epoch of which Wait has said that it may be succeeded; nil for none
	copying  *copying  // the restore that is under way, or nil
	held     *copying  // what the directory has; nil before the first restore
	fresh    time.Time // what was committed until then is in the directory
}

// A copying is a checkpoint on its way into the directory.
type copying struct {
	checkpoint *checkpoint.Checkpoint
	newestAt   time.Time // when a look that found nothing newer began
	ctx        context.Context
	cancel     context.CancelFunc
}

var (
	errStandbyClosed = errors.New("the standby was closed")
	errPromoted      = errors.New("the standby was promoted")
)

// Follow keeps a run directory at the newest checkpoint of a task that another process
// owns. It returns at once; the first restore is made in the background, like all others.
// What the directory has is verified and used: only what changed is fetched. If several
// checkpoints are committed meanwhile, only the newest is restored.
//
// It follows until ctx ends, the runner is drained, or the Standby is closed or promoted. A
// look or a restore that fails is logged and counted, and made again.
func (r *Runner) Follow(ctx context.Context, name string, spec FollowSpec) (*Standby, error) {
	if err := spec.check(name); err != nil {
		return nil, err
	}
	task, err := r.job.Task(name)
	if err != nil {
		return nil, err
	}
	spec.Interval = cmp.Or(spec.Interval, DefaultFollowInterval)
	s := &Standby{
		runner: r, name: name, spec: spec, log: r.opts.Logger.With("task", name), task: task,
		done: make(chan struct{}), changed: make(chan struct{}), looking: make(chan struct{}, 1), fresh: time.Now(),
	}
	if s.dir, err = lockDir(spec.Dir); err != nil {
		return nil, fmt.Errorf("task %q: %w", name, err)
	}
	if err = s.takePlace(); err == nil {
		err = r.addStandby(s)
	}
	if err != nil {
		return nil, errors.Join(err, s.dir.unlock())
	}
	s.ctx, s.stop = context.WithCancelCause(ctx)
	r.telemetry.zeroFollow(ctx)
	s.lookers, s.stopLook = context.WithCancel(s.ctx)
	s.working.Go(s.lookOn)
	s.working.Go(s.keep)
	go s.end()
	return s, nil
}

// takePlace moves what this task has left outside the run directory into it.
func (s *Standby) takePlace() error {
	if s.spec.State == nil {
		return nil
	}
	p, err := s.dir.takePlace(s.spec.State, s.name)
	if err != nil {
		return fmt.Errorf("task %q: %w", s.name, err)
	}
	there, err := p.look()
	if err == nil && there == own {
		err = p.takeIn()
	}
	return err
}

func (r *Runner) addStandby(s *Standby) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.drained:
		return fmt.Errorf("task %q: %w", s.name, ErrDrained)
	case r.standbys[s.name] != nil:
		return backend.Invalidf("task %q is followed by this runner already; close its Standby first", s.name)
	}
	if r.standbys == nil {
		r.standbys = make(map[string]*Standby)
	}
	r.standbys[s.name] = s
	return nil
}

func (r *Runner) removeStandby(s *Standby) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.standbys, s.name)
}

// end frees the directory when the work has ended, unless it is a task's by then.
func (s *Standby) end() {
	s.working.Wait()
	s.runner.removeStandby(s)
	s.mu.Lock()
	promoted := s.promoted
	s.promoted = true // too late for another one
	s.mu.Unlock()
	if !promoted {
		s.closed = s.dir.unlock()
	}
	s.stop(nil)
	close(s.done)
}

// Name returns the task's name.
func (s *Standby) Name() string { return s.name }

// Done is closed when the task is not followed any more.
func (s *Standby) Done() <-chan struct{} { return s.done }

// Close ends the following, and unlocks the directory, which keeps what it has.
func (s *Standby) Close() error {
	s.stop(errStandbyClosed)
	<-s.done
	return s.closed
}

// Lag returns by how much the directory is behind, at most: all that was committed before
// that time is in it. It is measured by this process's own clock. It goes from 0 to
// FollowSpec.Interval and back while there is nothing new, and grows while a restore is under
// way or the store cannot be reached.
func (s *Standby) Lag() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.fresh)
}

// Checkpoint returns the checkpoint that the directory has, or nil if it has none yet.
func (s *Standby) Checkpoint() *checkpoint.Checkpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		return nil
	}
	return s.held.checkpoint
}

// keep restores the newest checkpoint, again and again.
func (s *Standby) keep() {
	for {
		c := s.nextCopy()
		if c == nil {
			return
		}
		err := s.copy(c)
		s.copied(c, err)
		if err == nil || s.ctx.Err() != nil {
			continue
		}
		s.failed("restore", err)
		select {
		case <-time.After(s.spec.Interval):
		case <-s.ctx.Done():
		}
	}
}

// failed counts a look or a restore that failed. Of several in a row the first one is told.
func (s *Standby) failed(kind string, err error) {
	s.runner.telemetry.followFailed(s.ctx, kind)
	s.mu.Lock()
	level := slog.LevelWarn
	if s.failing {
		level = slog.LevelDebug
	}
	s.failing = true
	s.mu.Unlock()
	s.log.Log(s.ctx, level, "a standby could not do its work; it tries again", "kind", kind, "err", err)
}

// nextCopy waits until the task has a checkpoint that the directory does not have. It
// returns nil when there is to be none any more.
func (s *Standby) nextCopy() *copying {
	for {
		s.mu.Lock()
		if c := s.view.newest(); c != nil && s.lookers.Err() == nil && (s.held == nil || s.held.checkpoint != c) {
			ctx, cancel := context.WithCancel(s.ctx)
			s.copying = &copying{c, s.view.lookedAt, ctx, cancel}
			defer s.mu.Unlock()
			return s.copying
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-s.lookers.Done():
			return nil
		}
	}
}

// copy makes the directory what a checkpoint has. All of it is restored as one: a named
// store is a directory of the state. Restores of standbys have places of their own, so that
// those of tasks that are taken on do not wait for them.
func (s *Standby) copy(c *copying) (err error) {
	if has := s.Checkpoint(); has != nil && has.SameState(c.checkpoint) {
		return nil
	}
	give, err := s.runner.copies.take(c.ctx, 0)
	if err != nil {
		return err
	}
	defer give()
	ctx, span := s.runner.telemetry.begin(c.ctx, "holdfast.follow", s.name)
	defer func() { span(err) }()
	return c.checkpoint.Restore(ctx, s.dir.store(""), checkpoint.RestoreOptions{
		Replace: true, Transient: true, Background: true, Progress: s.spec.Progress,
	})
}

// copied notes what came of a restore.
func (s *Standby) copied(c *copying, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.held, s.failing = c, false
		if c.newestAt.After(s.fresh) {
			s.fresh = c.newestAt
		}
	}
	s.copying = nil
	c.cancel()
	s.wake()
}

// wake tells those who wait that something has changed.
func (s *Standby) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Promote makes this process the owner of the task, as [Runner.Own] does, with the
// directory that the Standby has kept: what the last checkpoint has in addition is fetched,
// and nothing else. If the directory has that checkpoint already, it is not even read.
// spec.Dir and spec.State may be left out: they are those of the FollowSpec.
//
// Promote fences the owner, if there is one: that is safe whether or not it is alive. If
// another process, another standby say, has claimed the task since Wait returned, or since
// the last look if there was no Wait, Promote returns checkpoint.ErrConflict and fences
// nobody. Before the first look there is nothing to compare with: then Promote claims the task
// as Own does.
//
// Once Promote has begun, the task is not followed any more, whatever comes of it. After an
// error the directory keeps what it has for another call of Follow or Own. A wrong spec
// (backend.ErrInvalid) ends nothing.
func (s *Standby) Promote(ctx context.Context, spec Spec) (*Task, error) {
	spec.Dir = cmp.Or(spec.Dir, s.spec.Dir)
	if filepath.Clean(spec.Dir) != filepath.Clean(s.spec.Dir) {
		return nil, backend.Invalidf("runner: task %q: Spec.Dir is %s, and the standby has kept %s; leave it empty", s.name, spec.Dir, s.spec.Dir)
	}
	switch {
	case spec.State == nil:
		spec.State = s.spec.State
	case s.spec.State == nil || *spec.State != *s.spec.State:
		return nil, backend.Invalidf("runner: task %q: Spec.State is not FollowSpec.State; leave it out", s.name)
	}
	if err := spec.check(s.name); err != nil {
		return nil, err
	}
	if spec.IfEpoch != nil {
		return nil, backend.Invalidf("runner: task %q: Spec.IfEpoch goes with Own alone: a standby knows which epoch it succeeds", s.name)
	}
	t := newTask(ctx, s.runner, s.name, spec)
	if err := s.handOver(t); err != nil {
		return nil, err
	}
	if err := s.runner.add(t); err != nil {
		s.finish()
		return nil, errors.Join(err, s.dir.unlock())
	}
	return s.runner.own(ctx, t)
}

// handOver gives the directory to a task, and ends the looks.
func (s *Standby) handOver(t *Task) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.promoted || s.ctx.Err() != nil {
		return s.notFollowed()
	}
	s.promoted = true
	s.stopLook()
	t.dir, t.standby = s.dir, s
	switch {
	case s.verdict != nil:
		t.ifEpoch = s.verdict
	case s.view.seen:
		t.ifEpoch = new(s.view.status.Epoch)
	}
	return nil
}

func (s *Standby) notFollowed() error {
	why := context.Cause(s.ctx)
	if why == nil {
		why = errPromoted
	}
	return fmt.Errorf("task %q is not followed any more: %w", s.name, why)
}

// finish ends the work at once, and waits until it has.
func (s *Standby) finish() {
	s.stop(errPromoted)
	s.working.Wait()
}

// settle ends the work of a standby whose task was claimed, and returns what the directory
// has: c, which is the checkpoint to go on from, if that is on its way. What else is on
// its way is of no use any more. If ctx ends, it does not wait for c either.
func (s *Standby) settle(ctx context.Context, c *checkpoint.Checkpoint) *checkpoint.Checkpoint {
	defer context.AfterFunc(ctx, func() { s.stop(context.Cause(ctx)) })()
	s.mu.Lock()
	if now := s.copying; now != nil && (c == nil || !now.checkpoint.SameState(c)) {
		now.cancel()
	}
	s.mu.Unlock()
	s.working.Wait()
	return s.Checkpoint()
}
