package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/engines/dir"
	"github.com/holdfast-io/holdfast/internal/filelock"
	"github.com/holdfast-io/holdfast/internal/process"
	"github.com/holdfast-io/holdfast/runner"
)

// A supervisor runs one program, and keeps checkpoints of its directory.
type supervisor struct {
	p    *program
	o    *runFlags
	job  *checkpoint.Job
	task *checkpoint.Task // to look at, beside its owner

	owned   *runner.Task
	voice   *voice
	monitor *monitor       // nil without --metrics
	group   *process.Group // nil before it was started
	work    sync.WaitGroup // of goroutines that end with the group
	last    atomic.Bool    // the program has ended, and the last checkpoint is to be saved
}

// run is the life of a program. ctx ends when this process is asked to end before the
// program was started; from then on signals say so.
func (s *supervisor) run(ctx context.Context) (err error) {
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.close()) }()
	if s.o.metrics != "" {
		if s.monitor, err = openMonitor(s.o.metrics, s.o.task); err != nil {
			return err
		}
		defer s.monitor.close()
		s.p.note("metrics are at http://%s/metrics", s.monitor.listener.Addr())
	}
	epoch, err := s.mayClaim(ctx)
	if err != nil {
		return err
	}
	signals, stop := notify()
	defer stop()
	r, err := runner.New(s.job, s.options())
	if err != nil {
		return err
	}
	if s.voice, err = openVoice(s); err != nil {
		return err
	}
	defer s.voice.close()
	if err := s.own(ctx, r, epoch); err != nil {
		return errors.Join(err, s.drain(r)) //nolint:contextcheck // ctx has ended by then
	}
	if s.group, err = process.Start(s.command(lock.File())); err != nil {
		err = ended{exitCannotRun, err}
		return errors.Join(err, s.owned.ReleaseAsIs(context.WithoutCancel(ctx)), s.drain(r)) //nolint:contextcheck // likewise
	}
	s.voice.open()
	s.setReady(true)
	if !s.o.whenAsked {
		// Not before: a cut looks whether there is a program to stand still.
		if err := r.SetInterval(s.o.every); err != nil {
			return err
		}
	}
	why := s.watch(ctx, signals)
	s.setReady(false)
	return s.finish(r, why) //nolint:contextcheck // likewise
}

// options are those of a runner that ends a program for nothing but a lost claim: a store
// that cannot be reached for hours is no reason to stop what is computed.
func (s *supervisor) options() runner.Options {
	opts := runner.Options{
		Interval: runner.Manual, MaxShare: maxShare, MaxDelay: math.MaxInt64 / 4, MaxFailures: math.MaxInt, MaxTimeouts: math.MaxInt,
		Logger: slog.New(noteHandler{p: s.p, least: slog.LevelWarn}), // the program's messages stand beside
	}
	if s.monitor != nil {
		opts.MeterProvider = s.monitor.provider
	}
	return opts
}

// setReady says to those who ask whether the program runs on the restored state.
func (s *supervisor) setReady(ready bool) {
	if s.monitor != nil {
		s.monitor.epoch.Store(s.owned.Epoch())
		s.monitor.ready.Store(ready)
	}
}

// maxShare is the share of its time that a program stands still for cuts, at most: on a busy
// machine, or with a large state, checkpoints come less often than was asked for.
const maxShare = 0.1

// own claims the task, if it still has the epoch that mayClaim has seen, and restores its
// state. What is adopted is saved before the program starts.
func (s *supervisor) own(ctx context.Context, r *runner.Runner, epoch uint64) (err error) {
	report, stop := s.p.follow("restoring", "fetched")
	spec := runner.Spec{
		Dir:     s.o.runDir,
		State:   &runner.StateDir{Path: s.o.stateDir, Job: plainURL(s.o.url), Adopt: s.o.adopt},
		IfEpoch: &epoch,
		Claimed: s.noteClaim,
		Open:    s.open,
		Hooks:   runner.Hooks{After: s.voice.committed, Failed: s.voice.failed},
	}
	if report != nil {
		spec.Progress = func(_ string, now checkpoint.Progress) { report(now) }
	}
	s.owned, err = r.Own(ctx, s.o.task, spec)
	stop()
	if err != nil {
		return err
	}
	s.voice.task = s.owned
	if s.o.adopt && s.owned.Restored().Checkpoint == nil {
		_, err = s.owned.Commit(ctx)
	}
	return err
}

// open returns what cuts the program's directory.
func (s *supervisor) open(_ context.Context, restored *runner.Restored) (runner.Cutter, error) {
	opts := dir.Options{Immutable: s.o.immutable, Exclude: s.o.exclude}
	if s.o.pause || s.o.pre != "" || s.o.post != "" || s.o.whenAsked {
		opts.Still = s.still
	}
	engine, err := dir.Open(restored.Dir(""), restored.Cuts, opts)
	if err != nil {
		return nil, err
	}
	return &cutter{engine, s}, nil
}

// A cutter is a directory, with what the program has said of it.
type cutter struct {
	*dir.Engine
	s *supervisor
}

func (c *cutter) Cut(ctx context.Context) (runner.Cut, error) {
	src, remove, err := c.Engine.Cut(ctx)
	if err == nil {
		if err = c.s.unsafe(); err != nil {
			err = errors.Join(err, remove())
		}
	}
	if err != nil {
		return runner.Cut{}, err
	}
	return runner.Cut{
		Stores: map[string]checkpoint.Source{"": src},
		Labels: c.s.voice.said(),
		Done:   func(*checkpoint.Checkpoint, error) { _ = remove() }, // which only gives the place back
	}, nil
}

// unsafe returns why a copy that was just made must not become a checkpoint: nil if it may.
func (s *supervisor) unsafe() error {
	switch {
	case s.group == nil || s.last.Load():
		return nil // there is no program that writes
	case hasEnded(s.group): // in the middle of the copy, perhaps by a failure
		return process.ErrEnded
	case s.o.whenAsked && !s.voice.waits():
		return errors.New("the program did not wait for the answer, so its state may have changed; nothing was saved")
	}
	return nil
}

// command is the program, with what it finds in its environment. It keeps the lock open.
func (s *supervisor) command(lock *os.File) process.Command {
	seq := uint64(0)
	if c := s.owned.Restored().Checkpoint; c != nil {
		seq = c.Seq
	}
	return process.Command{
		Args: s.o.command, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Keep: []*os.File{lock},
		Env: append(os.Environ(),
			"HOLDFAST_STATE="+s.o.stateDir, "HOLDFAST_TASK="+s.o.task,
			fmt.Sprintf("HOLDFAST_CHECKPOINT=%d", seq), voiceVariable+"="+s.voice.url),
	}
}

// A reason is why a program is not running any more.
type reason struct {
	asked bool  // this process was asked to end
	lost  error // the task is not this process's any more
}

// watch waits for the end of the program, and ends it when that is asked for or the task is
// lost.
func (s *supervisor) watch(ctx context.Context, signals <-chan os.Signal) (why reason) {
	tick, tests := time.NewTicker(s.o.every), time.NewTicker(restoreTestInterval)
	defer tick.Stop()
	defer tests.Stop()
	s.lookForRestoreTest(ctx)
	lost := s.owned.Context().Done()
	fenced := make(chan error, 1)
	if ctx.Err() != nil { // the signal came before anyone passed it on
		why.asked = true
		s.stop()
	}
	for {
		select {
		case <-s.group.Ended():
			return why
		case <-lost:
			lost, why.lost = nil, context.Cause(s.owned.Context()) //nolint:contextcheck // it is the task's
			s.stop()
		case why.lost = <-fenced:
			s.stop()
		case sig := <-signals:
			if sig == syscall.SIGTERM && !why.asked {
				why.asked = true
				s.stop()
				continue
			}
			s.group.Signal(sig.(syscall.Signal))
		case <-tick.C:
			s.remind(ctx, fenced)
		case <-tests.C:
			s.lookForRestoreTest(ctx)
		}
	}
}

// restoreTestInterval is how often run looks when a restore was last tested. Each look costs
// two requests.
const restoreTestInterval = 10 * time.Minute

// lookForRestoreTest finds out when a restore of the task was last tested, for the metrics.
func (s *supervisor) lookForRestoreTest(ctx context.Context) {
	if s.monitor == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTestInterval)
	s.work.Go(func() { // the end of the program does not wait for the store
		defer cancel()
		select {
		case <-s.group.Ended():
		case <-ctx.Done():
		}
	})
	s.work.Go(func() {
		defer cancel()
		last, err := s.task.LastRestoreTest(ctx)
		switch {
		case err == nil:
			s.monitor.restoreTest.Store(last)
		case !hasEnded(s.group):
			s.p.note("when a restore was last tested cannot be read, and is looked for again in %v: %v", restoreTestInterval, err)
		}
	})
}

// stop asks the program to end, and sees to it that it does.
func (s *supervisor) stop() {
	s.setReady(false)
	s.work.Go(func() { s.group.Stop(syscall.SIGTERM, s.o.grace) })
}

// remind asks a program that says when to say so. It also looks whether the task is still
// this process's, because no commit by time finds that out.
func (s *supervisor) remind(ctx context.Context, fenced chan<- error) {
	if !s.o.whenAsked {
		return
	}
	if s.o.signal != 0 {
		s.group.SignalFirst(s.o.signal)
	}
	s.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(s.o.every, s.o.grace))
		defer cancel()
		status, err := s.task.Status(ctx)
		if err == nil && status.Epoch > s.owned.Epoch() {
			select {
			case fenced <- fmt.Errorf("%w: %s has claimed task %q", checkpoint.ErrFenced, status.WrittenBy, s.o.task):
			default: // it is known
			}
		}
	})
}

// finish makes the last checkpoint, gives the task back, and returns how the program ended.
func (s *supervisor) finish(r *runner.Runner, why reason) error {
	s.work.Wait()
	code := s.group.Code()
	if why.lost == nil && s.owned.Context().Err() != nil {
		why.lost = context.Cause(s.owned.Context())
	}
	if why.lost != nil {
		return errors.Join(why.lost, s.drain(r))
	}
	var err error
	if !s.saves(code, why) {
		ctx, cancel := context.WithTimeout(context.Background(), s.o.grace)
		defer cancel()
		err = s.owned.ReleaseAsIs(ctx)
	} else {
		s.last.Store(true)
	}
	if err = errors.Join(err, s.drain(r)); err != nil {
		return advice{
			fmt.Errorf("the program has ended (exit code %d), and its last checkpoint was not saved: %w", code, err),
			fmt.Sprintf("%s is as the program has left it: save it with 'holdfast save' before the program is run again", s.o.state),
		}
	}
	if code != 0 {
		return ended{code: code}
	}
	return nil
}

// saves reports whether there is a last checkpoint. After a failure there is one if the
// state may be copied at any moment: then it may be copied at this one too.
func (s *supervisor) saves(code int, why reason) bool {
	anyMoment := s.o.pre == "" && s.o.post == ""
	switch {
	case s.o.whenAsked:
		return false
	case code == 0:
		return true
	}
	return anyMoment && (why.asked || !s.o.noSaveOnFailure)
}

func (s *supervisor) drain(r *runner.Runner) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.o.grace, errors.New("the time of --grace is over"))
	defer cancel()
	return r.Drain(ctx)
}

// A programLock is held for as long as this process, or a program that it has started,
// lives: the program keeps the file open.
type programLock struct {
	*filelock.Lock
	root *os.Root
}

func (s *supervisor) lock() (*programLock, error) {
	if err := os.MkdirAll(s.o.runDir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(s.o.runDir)
	if err != nil {
		return nil, err
	}
	// What a killed run has started dies with it, but not at the same moment.
	for end := time.Now().Add(leftTime); ; <-time.After(10 * time.Millisecond) {
		lock, err := filelock.TryLock(root, "program.lock", 0o600)
		if err == nil {
			return &programLock{lock, root}, nil
		}
		if !errors.Is(err, filelock.ErrHeld) || time.Now().After(end) {
			if errors.Is(err, filelock.ErrHeld) {
				err = fmt.Errorf("%s: %w by another 'holdfast run', or by a program that one which was killed has left running; end that first", s.o.state, runner.ErrDirInUse)
			}
			return nil, errors.Join(err, root.Close())
		}
	}
}

// leftTime is how long a run waits for what an earlier one has left.
const leftTime = 3 * time.Second

// close closes the file. It does not unlock it: if a process of the program has got away,
// it still has the lock.
func (l *programLock) close() error { return errors.Join(l.File().Close(), l.root.Close()) }

// An ownClaim is a claim that this run directory has made.
type ownClaim struct {
	Job   string `json:"job"`
	Task  string `json:"task"`
	Epoch uint64 `json:"epoch"`
}

const claimName = "claim.json"

// mayClaim returns the epoch of the task, for which alone it is to be claimed: of two runs that
// look at the same moment, the second one fences nobody. It refuses a task that is claimed,
// unless that is asked for, or its owner was an earlier run in this directory, which is dead
// because the directory is not locked.
func (s *supervisor) mayClaim(ctx context.Context) (epoch uint64, err error) {
	status, err := s.task.Status(ctx)
	if err != nil || s.o.takeOver || !status.Claimed || s.wasClaimedHere(status.Epoch) {
		return status.Epoch, err
	}
	return 0, fmt.Errorf("%w: task %q, by %s", checkpoint.ErrClaimed, s.o.task, status.WrittenBy)
}

func (s *supervisor) wasClaimedHere(epoch uint64) bool {
	var mine ownClaim
	data, err := os.ReadFile(filepath.Join(s.o.runDir, claimName))
	return err == nil && json.Unmarshal(data, &mine) == nil && mine == ownClaim{plainURL(s.o.url), s.o.task, epoch}
}

// noteClaim records a claim, before anything is restored: whenever this process is killed, the
// next one here goes on. If the record is lost, it has to be told to take over.
func (s *supervisor) noteClaim(epoch uint64) error {
	data, err := json.Marshal(ownClaim{plainURL(s.o.url), s.o.task, epoch})
	if err != nil {
		return err
	}
	path := filepath.Join(s.o.runDir, claimName)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
