package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/filelock"
	"github.com/holdfast-io/holdfast/internal/process"
)

// A programLock is held for as long as this process, or a program that it has started,
// lives: the program keeps the file open. own is held by this process alone, so that another
// run is told from what one that was killed has left.
type programLock struct {
	*filelock.Lock
	own  *filelock.Lock
	root *os.Root
}

const (
	ownLockName     = "run.lock"
	programLockName = "program.lock"
)

func (s *supervisor) lock(ctx context.Context) (*programLock, error) {
	if err := os.MkdirAll(s.o.runDir, 0o700); errors.Is(err, fs.ErrNotExist) {
		return nil, advice{err, fmt.Sprintf("%s and this directory beside it are to be made: give a --state where that can be done", s.o.state)}
	} else if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(s.o.runDir)
	if err != nil {
		return nil, err
	}
	// What a killed run has started dies with it, but not at the same moment.
	lock, err := lockWithin(ctx, root, headerVariable+"="+s.o.headerFile(), leftTime)
	if err != nil {
		return nil, errors.Join(s.explainInUse(err), root.Close())
	}
	return lock, nil
}

// explainInUse says who has DIR, if that is why it could not be locked.
func (s *supervisor) explainInUse(err error) error {
	const next = "wait for its end, or end it"
	used := inUse{}
	switch {
	case !errors.As(err, &used):
		return err
	case used.byRun:
		err = fmt.Errorf("--state %s is in use by another 'holdfast run'%s", s.o.state, used.number())
		return ended{exitRival + ownCodes, advice{err, next + "; --take-over is for a run on another machine, or with another directory"}}
	case used.pid != 0:
		err = fmt.Errorf("--state %s is in use by %s, which a 'holdfast run' that was killed has left running", s.o.state, process.Describe(used.pid))
	default:
		err = fmt.Errorf("--state %s is in use by a process which a 'holdfast run' that was killed has left running", s.o.state)
	}
	return advice{err, next}
}

// inUse is why a directory cannot be locked.
type inUse struct {
	byRun bool // by a run that lives, and not by what one has left
	pid   int  // 0 if that is not known
}

func (u inUse) Error() string { return "the directory is in use" }

// number says which process it is, if that is known.
func (u inUse) number() string {
	if u.pid == 0 {
		return ""
	}
	return fmt.Sprintf(" (process %d)", u.pid)
}

// lockWithin waits for so long until nobody else has the locks, and no process has the variable by
// which those that a run has started are known.
func lockWithin(ctx context.Context, root *os.Root, variable string, d time.Duration) (*programLock, error) {
	end := time.NewTimer(d)
	defer end.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		lock, err := lockUnused(root, variable)
		if !errors.As(err, new(inUse)) {
			return lock, err
		}
		select {
		case <-again.C:
		case <-end.C:
			return nil, err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func lockUnused(root *os.Root, variable string) (*programLock, error) {
	own, err := tryLock(root, ownLockName)
	if used := (inUse{}); errors.As(err, &used) {
		return nil, inUse{byRun: true, pid: used.pid}
	}
	if err != nil {
		return nil, err
	}
	lock, err := tryLock(root, programLockName)
	if err != nil {
		return nil, errors.Join(err, own.Unlock())
	}
	pid, err := process.Left(variable)
	if err == nil && pid != 0 {
		err = inUse{pid: pid}
	}
	if err != nil {
		return nil, errors.Join(err, lock.Unlock(), own.Unlock())
	}
	return &programLock{lock, own, root}, nil
}

// tryLock locks a file, or says who has.
func tryLock(root *os.Root, name string) (*filelock.Lock, error) {
	lock, err := filelock.TryLock(root, name, 0o600)
	if !errors.Is(err, filelock.ErrHeld) {
		return lock, err
	}
	info, err := root.Stat(name)
	if err != nil {
		return nil, inUse{} // by whom is all that is not known
	}
	return nil, inUse{pid: process.Holder(info)}
}

// leftTime is how long a run waits for what an earlier one has left.
const leftTime = 3 * time.Second

// close closes the program's file. It does not unlock it: if a process of the program has got
// away, it still has the lock.
func (l *programLock) close() error {
	return errors.Join(l.File().Close(), l.own.Unlock(), l.root.Close())
}

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
	defer s.p.noteSilence()()
	status, err := s.task.Status(ctx)
	if err != nil || s.o.takeOver || !status.Claimed || s.wasClaimedHere(status.Epoch) {
		return status.Epoch, err
	}
	return 0, claimedBy{s.o.task, status.WrittenBy}
}

// A claimedBy says who has claimed a task.
type claimedBy struct{ task, owner string }

func (c claimedBy) Error() string {
	return fmt.Sprintf("%v: task %q, by %s", checkpoint.ErrClaimed, c.task, c.owner)
}

func (c claimedBy) Unwrap() error { return checkpoint.ErrClaimed }

// silenceTime is how long a store may take for its first answer before the user is told.
const silenceTime = 3 * time.Second

// noteSilence tells the user that the store does not answer, if done is not called soon.
func (p *program) noteSilence() (done func()) {
	timer := time.AfterFunc(silenceTime, func() {
		p.note("the store has not answered for %v, and is asked again", silenceTime)
	})
	return func() { timer.Stop() }
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
