package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/filelock"
	"github.com/holdfast-io/holdfast/internal/process"
	"github.com/holdfast-io/holdfast/runner"
)

// A programLock is held for as long as this process, or a program that it has started,
// lives: the program keeps the file open.
type programLock struct {
	*filelock.Lock
	root *os.Root
}

func (s *supervisor) lock(ctx context.Context) (*programLock, error) {
	if err := os.MkdirAll(s.o.runDir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(s.o.runDir)
	if err != nil {
		return nil, err
	}
	// What a killed run has started dies with it, but not at the same moment.
	lock, err := lockWithin(ctx, root, headerVariable+"="+s.o.headerFile(), leftTime)
	switch left := (leftProcess)(0); {
	case errors.As(err, &left):
		err = fmt.Errorf("%s: %w by process %d, which a run that was killed has left running; end that first", s.o.state, runner.ErrDirInUse, int(left))
	case errors.Is(err, filelock.ErrHeld):
		err = fmt.Errorf("%s: %w by another 'holdfast run', or by a program that one which was killed has left running; end that first", s.o.state, runner.ErrDirInUse)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &programLock{lock, root}, nil
}

// A leftProcess is the number of one that an earlier run has left, and that has closed the file
// of the lock.
type leftProcess int

func (p leftProcess) Error() string { return fmt.Sprintf("process %d was left", int(p)) }

// lockWithin waits for so long until the lock is free, and no process has the variable by which
// those that a run has started are known.
func lockWithin(ctx context.Context, root *os.Root, variable string, d time.Duration) (*filelock.Lock, error) {
	end := time.NewTimer(d)
	defer end.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		lock, err := lockUnused(root, variable)
		if !errors.Is(err, filelock.ErrHeld) && !errors.As(err, new(leftProcess)) {
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

func lockUnused(root *os.Root, variable string) (*filelock.Lock, error) {
	lock, err := filelock.TryLock(root, "program.lock", 0o600)
	if err != nil {
		return nil, err
	}
	pid, err := process.Left(variable)
	if err == nil && pid != 0 {
		err = leftProcess(pid)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return lock, nil
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
