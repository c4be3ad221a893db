package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
)

// errNotNeeded is how a standby ends that was asked to end while it followed.
var errNotNeeded = errors.New("the standby was not needed")

// standBy makes this process the task's owner once nobody else is: at once, if the task has no
// owner, or its owner was an earlier run in this directory. Of several that want to be that, one
// succeeds, and the others follow it.
func (s *supervisor) standBy(ctx context.Context, r *runner.Runner, signals <-chan os.Signal) error {
	for followed := false; ; {
		epoch, err := s.mayClaim(ctx)
		claimed := claimedBy{}
		switch {
		case err == nil:
			err = untilAsked(ctx, signals, func(ctx context.Context) error { return s.own(ctx, r, epoch) })
		case errors.As(err, &claimed):
			s.p.note("task %q is followed: its owner is %s", claimed.task, claimed.owner)
			followed = true
			err = s.follow(ctx, r, signals)
		}
		switch {
		case errors.Is(err, checkpoint.ErrConflict):
			s.p.note("%v", err)
		case followed && ctx.Err() == nil && passes(err):
			s.p.note("the task could not be taken over, and is followed again: %s", oneLine(err.Error()))
			if err := s.pause(ctx, signals); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// passes reports whether an error is one of the store that may be over soon: a standby that has
// waited for days does not end because the store is away at the moment of its turn. It ends by one
// that says that something is wrong, or lost.
func passes(err error) bool {
	for _, final := range []error{
		checkpoint.ErrCorrupt, checkpoint.ErrLost, checkpoint.ErrVersion, checkpoint.ErrGone, backend.ErrInvalid, runner.ErrNotState,
	} {
		if errors.Is(err, final) {
			return false
		}
	}
	return errors.As(err, new(*backend.Error)) && !errors.As(err, new(early))
}

// pause waits for one look's time, or until a signal tells what to do.
func (s *supervisor) pause(ctx context.Context, signals <-chan os.Signal) error {
	short, cancel := context.WithTimeout(ctx, s.lookInterval())
	defer cancel()
	if err := hear(short, signals); errors.Is(err, errNotNeeded) || ctx.Err() != nil {
		return errNotNeeded
	}
	return nil
}

// follow keeps a copy of the newest checkpoint until the owner may be succeeded, and then claims
// the task.
func (s *supervisor) follow(ctx context.Context, r *runner.Runner, signals <-chan os.Signal) error {
	standby, err := r.Follow(ctx, s.o.task, runner.FollowSpec{
		Dir: s.o.runDir, State: s.stateDir(), Interval: s.lookInterval(),
	})
	if err != nil {
		return err
	}
	s.setFollowing(standby)
	defer s.setFollowing(nil)
	why, err := s.waitForTurn(ctx, standby, signals)
	if err != nil {
		return errors.Join(err, standby.Close())
	}
	s.p.note("task %q is taken over: %s", s.o.task, why)
	err = untilAsked(ctx, signals, func(ctx context.Context) error {
		return s.become(func(spec runner.Spec) (*runner.Task, error) { return standby.Promote(ctx, spec) })
	})
	if err != nil {
		err = errors.Join(err, standby.Close()) // it may be followed again
	}
	return err
}

// looksInSilence is how often a standby looks for a sign of life within --silence, at least.
const looksInSilence = 8

// lookInterval returns the time from one look at the store to the next.
func (s *supervisor) lookInterval() time.Duration {
	if s.o.silence == 0 {
		return runner.DefaultFollowInterval
	}
	return min(runner.DefaultFollowInterval, s.o.silence/looksInSilence)
}

// errAsked is why a standby that was told to take over waits no more.
var errAsked = errors.New("it was asked for")

// waitForTurn waits until the task is to be taken over, and returns why.
func (s *supervisor) waitForTurn(ctx context.Context, standby *runner.Standby, signals <-chan os.Signal) (why string, err error) {
	waiting, end := context.WithCancelCause(ctx)
	var hearing sync.WaitGroup
	hearing.Go(func() { end(hear(waiting, signals)) })
	turn, err := standby.Wait(waiting, s.o.silence)
	end(nil)
	hearing.Wait()
	switch {
	case ctx.Err() != nil || errors.Is(err, errNotNeeded):
		return "", errNotNeeded
	case errors.Is(err, errAsked):
		return "as it was asked for", nil
	case err != nil:
		return "", err
	}
	switch turn {
	case runner.WasDeleted:
		err = fmt.Errorf("%w: task %q was deleted while it was followed", checkpoint.ErrGone, s.o.task)
		return "", advice{err, "run again to begin it anew"}
	case runner.WentSilent:
		return fmt.Sprintf("its owner has given no sign of life for %v", s.o.silence), nil
	}
	return "its owner has given it back", nil
}

// hear waits for a signal that tells a standby what to do, and returns which.
func hear(ctx context.Context, signals <-chan os.Signal) error {
	for {
		select {
		case sig := <-signals:
			switch {
			case sig == takeOverSignal:
				return errAsked
			case asksToEnd(sig):
				return errNotNeeded
			}
		case <-ctx.Done():
			return nil
		}
	}
}
