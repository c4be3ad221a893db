package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/engines/dir"
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

	stoodStill time.Duration // the program, in the cut that was taken last; for the one that takes it

	last      atomic.Bool             // the program has ended, and the last checkpoint is to be saved
	giveUp    context.CancelCauseFunc // of the last checkpoint
	lastCuts  int                     // how often in a row its state could not be copied
	preFailed bool                    // after the program's end
}

// run is the life of a program. ctx ends when this process is asked to end before the
// program was started; from then on signals say so.
func (s *supervisor) run(ctx context.Context) (err error) {
	lock, err := s.lock(ctx)
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
	signals, stop := notify()
	defer stop()
	if s.voice, err = openVoice(s); err != nil {
		return err
	}
	defer s.voice.close()
	r, err := runner.New(s.job, s.options())
	if err != nil {
		return err
	}
	err = s.take(ctx, r, signals)
	if errors.Is(err, errNotNeeded) {
		return s.drain(r) //nolint:contextcheck // ctx has ended by then
	}
	if err != nil {
		return errors.Join(err, s.drain(r)) //nolint:contextcheck // likewise
	}
	if err := errors.Join(s.noteUnsaved(), dropEarly(signals)); err != nil {
		return errors.Join(err, s.giveBack(r)) //nolint:contextcheck // likewise
	}
	if s.group, err = process.Start(s.command(lock.File())); err != nil {
		return errors.Join(ended{exitCannotRun, explainStart(s.o.command[0], err)}, s.giveBack(r)) //nolint:contextcheck // likewise
	}
	s.voice.open()
	s.setReady(true)
	if err := s.beginToSave(r); err != nil {
		s.group.Stop(syscall.SIGTERM, s.o.grace)
		return errors.Join(err, s.giveBack(r)) //nolint:contextcheck // likewise
	}
	why := s.watch(ctx, signals)
	s.setReady(false)
	return s.finish(r, why, signals) //nolint:contextcheck // likewise
}

// take makes this process the task's owner.
func (s *supervisor) take(ctx context.Context, r *runner.Runner, signals <-chan os.Signal) error {
	if s.o.standby {
		return s.standBy(ctx, r, signals)
	}
	epoch, err := s.mayClaim(ctx)
	if err != nil {
		return err
	}
	return untilAsked(ctx, signals, func(ctx context.Context) error { return s.own(ctx, r, epoch) })
}

// beginToSave begins with checkpoints by time. Not before the program was started: a cut looks
// whether there is one to stand still.
func (s *supervisor) beginToSave(r *runner.Runner) error {
	if s.o.whenAsked {
		return nil
	}
	return r.SetInterval(s.o.every)
}

// giveBack gives the task back as it was restored.
func (s *supervisor) giveBack(r *runner.Runner) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.o.grace)
	defer cancel()
	return errors.Join(s.owned.ReleaseAsIs(ctx), s.drain(r))
}

// options are those of a runner that ends a program for nothing but a lost claim: a store
// that cannot be reached for hours is no reason to stop what is computed.
func (s *supervisor) options() runner.Options {
	opts := runner.Options{
		Interval: runner.Manual, MaxShare: maxShare, MaxDelay: forEver, MaxFailures: math.MaxInt, MaxTimeouts: math.MaxInt,
		CommitTimeout: forEver,                                                               // a first checkpoint that takes an hour would never be made
		Logger:        slog.New(runLog{noteHandler{p: s.p, least: slog.LevelWarn}, s.voice}), // the program's messages stand beside
	}
	if s.monitor != nil {
		opts.MeterProvider = s.monitor.provider
	}
	opts.Heartbeat = s.heartbeat()
	return opts
}

// forEver is longer than any run, and can be added to a time.
const forEver time.Duration = math.MaxInt64 / 4

// signsInSilence is how many signs of life an owner gives within --silence: one that is late, or
// lost, is none for a standby to act on.
const signsInSilence = 4

// leastHeartbeat is the shortest time between two heartbeats that --every asks for. Each costs
// two requests.
const leastHeartbeat = time.Second

// heartbeat returns after how long without a checkpoint the owner gives another sign of life.
// There may be no checkpoint for long: nobody asks for one, or each cut fails. Only by its
// heartbeats does a run find out then that it was fenced. One that saves a checkpoint every so
// often sends none for that: half of --every is room for the upload.
func (s *supervisor) heartbeat() time.Duration {
	every := s.o.every
	if !s.o.whenAsked {
		every += every / 2
	}
	every = max(every, leastHeartbeat)
	if s.o.silence != 0 {
		every = min(every, s.o.silence/signsInSilence)
	}
	return every
}

// setFollowing says to those who ask that the task is followed; nil for not.
func (s *supervisor) setFollowing(standby *runner.Standby) {
	if s.monitor != nil {
		s.monitor.following.Store(standby)
	}
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
func (s *supervisor) own(ctx context.Context, r *runner.Runner, epoch uint64) error {
	err := s.become(func(spec runner.Spec) (*runner.Task, error) {
		spec.State = s.stateDir()
		spec.State.Adopt = s.o.adopt
		spec.IfEpoch = &epoch
		return r.Own(ctx, s.o.task, spec)
	})
	switch {
	case errors.Is(err, checkpoint.ErrConflict):
		return advice{err, "if it is to be fenced, give --take-over"}
	case errors.Is(err, runner.ErrNotState) && strings.Contains(err.Error(), "adopt it"):
		return advice{err, "the flag --adopt does that"}
	case err == nil && s.o.adopt && s.owned.Restored().Checkpoint == nil:
		_, err = s.owned.Commit(ctx)
	}
	return err
}

// become makes this process the task's owner by own, which claims the task.
func (s *supervisor) become(own func(spec runner.Spec) (*runner.Task, error)) (err error) {
	report, stop := s.p.follow("restoring", "fetched")
	defer stop()
	spec := runner.Spec{
		Dir: s.o.runDir, Claimed: s.noteClaim, Open: s.open,
		Hooks: runner.Hooks{After: s.voice.committed, Failed: s.voice.failed},
	}
	if report != nil {
		spec.Progress = func(_ string, now checkpoint.Progress) { report(now) }
	}
	s.owned, err = own(spec)
	s.voice.task = s.owned
	if err != nil {
		return err
	}
	if aside := s.owned.Restored().Aside(); aside != "" {
		s.p.note("the program had ended before its first checkpoint; what it has left may be half written, and is in %s", aside)
	}
	return nil
}

func (s *supervisor) stateDir() *runner.StateDir {
	d := &runner.StateDir{Path: s.o.stateDir, Job: plainURL(s.o.url)}
	if s.wasUnsaved() {
		d.Aside = s.o.asideDir()
	}
	return d
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
	request := c.s.voice.waiting()
	c.s.stoodStill = 0
	src, remove, err := c.Engine.Cut(ctx)
	if err == nil {
		if err = c.s.unsafe(request); err != nil {
			err = errors.Join(err, remove())
		}
	}
	if err != nil {
		c.s.countLast(err)
		return runner.Cut{}, err
	}
	c.s.lastCuts = 0
	cut := runner.Cut{
		Stores: map[string]checkpoint.Source{"": src},
		Done:   func(*checkpoint.Checkpoint, error) { _ = remove() }, // which only gives the place back
	}
	if !c.s.o.whenAsked { // there, the program waits all the time
		pause := c.s.stoodStill
		cut.Pause = &pause
	}
	if request != nil && c.s.voice.waiting() == request {
		cut.Labels = request.labels
	}
	return cut, nil
}

// lastCutsMost is how often the state of a program that has ended is copied without success before
// that is given up: nobody changes it any more, so a file that cannot be read, or that a checkpoint
// cannot hold, stays what it is. A store that does not answer is another matter.
const lastCutsMost = 4

// uncopied is why a last checkpoint was given up.
type uncopied struct{ error }

func (e uncopied) Unwrap() error { return e.error }

// countLast counts a copy for the last checkpoint that has failed.
func (s *supervisor) countLast(err error) {
	if !s.last.Load() {
		return
	}
	if s.lastCuts++; s.lastCuts == lastCutsMost {
		s.giveUp(uncopied{err})
	}
}

// unsafe returns why a copy that was just made must not become a checkpoint: nil if it may. request
// is the one that waited when it was begun, or nil. If another one waits now, the program has written
// in between.
func (s *supervisor) unsafe(request *asked) error {
	switch {
	case s.group == nil || s.last.Load():
		return nil // there is no program that writes
	case hasEnded(s.group): // in the middle of the copy, perhaps by a failure
		return process.ErrEnded
	case s.o.whenAsked && (request == nil || s.voice.waiting() != request):
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
		Env: slices.Concat(os.Environ(), s.voice.environment(), []string{
			"HOLDFAST_STATE=" + s.o.stateDir, "HOLDFAST_TASK=" + s.o.task, fmt.Sprintf("HOLDFAST_CHECKPOINT=%d", seq),
		}),
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
			s.p.note("the task is not this run's any more, so the program is asked to end")
			s.stop()
		case sig := <-signals:
			switch {
			case sig == syscall.SIGTERM && !why.asked:
				why.asked = true
				s.stop()
			case s.o.standby && sig == takeOverSignal: // it came late: there is nothing left to do
			default:
				s.group.Signal(sig.(syscall.Signal))
			}
		case <-tick.C:
			s.remind()
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
	s.work.Go(func() {
		if s.group.Stop(syscall.SIGTERM, s.o.grace) {
			s.p.note("the program has not ended within %v, which --grace gives it, and was killed", s.o.grace)
		}
	})
}

// remind asks a program that says when to say so.
func (s *supervisor) remind() {
	if s.o.signal != 0 {
		s.group.SignalFirst(s.o.signal)
	}
}

// finish makes the last checkpoint, gives the task back, and returns how the program ended.
func (s *supervisor) finish(r *runner.Runner, why reason, signals <-chan os.Signal) error {
	s.work.Wait()
	code := s.group.Code()
	if code == 0 {
		s.forgetUnsaved()
	}
	s.noteEnd()
	if why.lost == nil && s.owned.Context().Err() != nil {
		why.lost = context.Cause(s.owned.Context())
	}
	if why.lost != nil {
		return advice{
			errors.Join(why.lost, s.drain(r)),
			fmt.Sprintf("the program was ended; what it has done since its last checkpoint is in %s alone", s.o.state),
		}
	}
	ctx, done := s.lastTime(why, signals)
	defer done()
	var err error
	if !s.saves(code, why) {
		err = s.owned.ReleaseAsIs(ctx)
	} else {
		s.last.Store(true)
	}
	if err = errors.Join(err, r.Drain(ctx)); err != nil {
		return s.explainLast(code, err)
	}
	if code != 0 {
		return ended{code: code}
	}
	return nil
}

// noteEnd says what the exit code of a program that has ended does not.
func (s *supervisor) noteEnd() {
	if sig := s.group.KilledBy(); sig != 0 && sig == s.o.signal {
		s.p.note("the program was killed by a signal like those that --signal sends: it must handle them")
	}
	if s.o.whenAsked && s.voice.savedNothing() {
		s.p.note("this run has saved no checkpoint: the program has not asked for one")
	}
}

// explainLast returns what is told when the task could not be ended as it should.
func (s *supervisor) explainLast(code int, err error) error {
	const next = "before the program is run again, because a run replaces it by the last checkpoint; if this run's claim is still in the store, that needs --take-over"
	switch {
	case s.voice.hasEnded():
		return advice{
			fmt.Errorf("the program has ended (exit code %d), and its last checkpoint is saved, but the task was not given back: %w", code, err),
			"a run on another machine needs --take-over",
		}
	case !s.last.Load(): // there is none: the program did not ask for one, or has failed
		return advice{
			fmt.Errorf("the program has ended (exit code %d), and the task was not given back: %w", code, err),
			"a run on another machine needs --take-over",
		}
	case errors.Is(err, checkpoint.ErrFenced), errors.Is(err, checkpoint.ErrLost):
		return advice{
			fmt.Errorf("the program has ended (exit code %d), and its last checkpoint was not saved: %w", code, err),
			fmt.Sprintf("what it has done since its last checkpoint is in %s alone", s.o.state),
		}
	case errors.Is(err, checkpoint.ErrUnknown), errors.Is(err, checkpoint.ErrUnsettled):
		return ended{exitUnsaved, advice{
			fmt.Errorf("the program has ended (exit code %d), and it is not known whether its last checkpoint was saved: %w", code, err),
			fmt.Sprintf("look with 'holdfast ls'; if it is not there, %s is as the program has left it: save it with 'holdfast save' %s", s.o.state, next),
		}}
	}
	if e := (uncopied{}); errors.As(err, &e) {
		err = e // and not that the task is not closed yet
	}
	return ended{exitUnsaved, advice{
		fmt.Errorf("the program has ended (exit code %d), and its last checkpoint was not saved: %w", code, err),
		fmt.Sprintf("%s is as the program has left it: save it with 'holdfast save' %s", s.o.state, next),
	}}
}

// errGrace is why a last checkpoint is given up.
var errGrace = errors.New("the time of --grace is over")

// lastTime returns the context of the last checkpoint, and what ends it. It ends --grace after
// this process was asked to end. If the program has ended by itself, nobody has asked yet, and
// nobody waits: a large state, or a store that cannot be reached, is given its time.
func (s *supervisor) lastTime(why reason, signals <-chan os.Signal) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	s.giveUp = cancel
	s.work.Go(func() {
		for asked := why.asked; !asked; {
			select {
			case sig := <-signals:
				asked = asksToEnd(sig)
			case <-ctx.Done():
				return
			}
		}
		timer := time.NewTimer(s.o.grace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel(errGrace)
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel(nil)
		s.work.Wait()
	}
}

// asksToEnd reports whether a signal asks a process without a program to end.
func asksToEnd(sig os.Signal) bool {
	return sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGHUP || sig == syscall.SIGQUIT
}

// saves reports whether there is a last checkpoint. After a failure there is one if the
// state may be copied at any moment: then it may be copied at this one too.
func (s *supervisor) saves(code int, why reason) bool {
	switch {
	case s.o.whenAsked:
		return false
	case code == 0:
		return true
	}
	return s.o.anyMoment() && (why.asked || !s.o.noSaveOnFailure)
}

func (s *supervisor) drain(r *runner.Runner) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.o.grace, errGrace)
	defer cancel()
	return r.Drain(ctx)
}
