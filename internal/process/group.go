// Package process runs another program: in a process group of its own, whose members get
// signals, stand still and end together.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// A Command is a program to be started. Its standard files are passed on as they are, so
// that a terminal stays one.
type Command struct {
	Args   []string // the first is the program: a name to be looked up, or a path
	Env    []string
	Dir    string // "" is that of this process
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
	Keep   []*os.File // open in the program too, as 3 and up
}

// A Group is a program that was started. Its methods may be called from many goroutines.
type Group struct {
	pid      int       // of its first process, and the number of its group
	terminal *terminal // nil if it was not started in the foreground of one
	ended    chan struct{}
	state    *os.ProcessState // set when ended

	pausing  sync.Mutex // held while the group stands still
	stopping func()     // ends what goes on while the group stands still
	asked    context.Context

	sending sync.Mutex
	gone    bool // its number may be another group's
}

func newGroup() *Group {
	p := &Group{ended: make(chan struct{})}
	p.asked, p.stopping = context.WithCancel(context.Background())
	return p
}

// ErrEnded means that the program has ended, or was asked to.
var ErrEnded = errors.New("the program has ended")

// LookPath makes sure that a program exists and may be run. What it returns is the path.
func LookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) {
		err = nil // it was asked for by its name in this directory
	}
	return path, err
}

// How long processes of the group may outlive the first one: after that they are killed,
// and after the second time they are left to the system.
const (
	stragglerTime = 2 * time.Second
	killTime      = 2 * time.Second
	look          = 5 * time.Millisecond
)

// wait waits for the program's first process, ends what is left of its group, and only
// then collects the first one: until then its number is no other group's.
func (p *Group) wait(cmd *exec.Cmd) {
	for p.terminal != nil && stopsBeforeItsEnd(p.pid) {
		p.suspend()
	}
	waitForEnd(p.pid)
	p.stopping() // the rest is made to go on, which a copy must not see
	p.endStragglers()
	p.terminal.takeBack(p.pid)
	p.sending.Lock()
	_ = cmd.Wait() // what it returns is in ProcessState
	p.gone = true
	p.sending.Unlock()
	p.state = cmd.ProcessState
	close(p.ended)
}

// endStragglers ends the processes of the group whose first process has ended: nothing
// may write to the state any more.
func (p *Group) endStragglers() {
	if p.others() == 0 {
		return
	}
	p.Signal(syscall.SIGTERM)
	p.resume()
	if p.othersWithin(stragglerTime) == 0 {
		return
	}
	p.Signal(syscall.SIGKILL)
	p.othersWithin(killTime)
}

// others counts the processes of the group that live, without the first one.
func (p *Group) others() (n int) {
	all, err := members(p.pid)
	if err != nil {
		return 0
	}
	for _, m := range all {
		if m.pid != p.pid && m.state != dead {
			n++
		}
	}
	return n
}

func (p *Group) othersWithin(d time.Duration) (left int) {
	end, again := time.NewTimer(d), time.NewTicker(look)
	defer end.Stop()
	defer again.Stop()
	for {
		if left = p.others(); left == 0 {
			return 0
		}
		select {
		case <-again.C:
		case <-end.C:
			return p.others()
		}
	}
}

// Pid returns the number of the program's first process, which is that of its group.
func (p *Group) Pid() int { return p.pid }

// Ended is closed when the program, and all processes of its group, have ended.
func (p *Group) Ended() <-chan struct{} { return p.ended }

// Code returns the exit code of a program that has ended: 128 and the number of the signal
// for one that was killed, as a shell says it.
func (p *Group) Code() int {
	if sig := p.KilledBy(); sig != 0 {
		return 128 + int(sig)
	}
	return p.state.ExitCode()
}

// Used returns the processor time that a program which has ended took.
func (p *Group) Used() time.Duration { return p.state.UserTime() + p.state.SystemTime() }

// KilledBy returns the signal that killed a program which has ended, or 0.
func (p *Group) KilledBy() syscall.Signal {
	if status, ok := p.state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return status.Signal()
	}
	return 0
}

// Signal sends a signal to all processes of the program's group.
func (p *Group) Signal(sig syscall.Signal) { p.send(-p.pid, sig) }

// SignalFirst sends a signal to the program's first process alone.
func (p *Group) SignalFirst(sig syscall.Signal) { p.send(p.pid, sig) }

func (p *Group) send(to int, sig syscall.Signal) {
	p.sending.Lock()
	defer p.sending.Unlock()
	if !p.gone {
		_ = kill(to, sig) // there may be nobody left to get it
	}
}

func (p *Group) resume() { p.Signal(sigCont) }

// Stop asks the program to end, by sig, and kills what is left of it after grace. It
// returns when all has ended, and whether that took a kill. What is done while the group stands
// still fails.
func (p *Group) Stop(sig syscall.Signal, grace time.Duration) (killed bool) {
	p.stopping()
	p.Signal(sig)
	p.resume() // a program that stands still does not see the signal
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.ended:
		return false
	case <-timer.C:
	}
	p.Signal(syscall.SIGKILL)
	<-p.ended
	return true
}

// Paused stops all processes of the group, calls do while they stand still, and lets them
// go on: after limit in any case, however long do takes. Then it fails, whatever do has
// returned. It returns for how long they stood still.
func (p *Group) Paused(ctx context.Context, limit time.Duration, do func(context.Context) error) (time.Duration, error) {
	p.pausing.Lock()
	defer p.pausing.Unlock()
	late := fmt.Errorf("the program may be paused for %v at most, and that was not enough", limit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	if p.asked.Err() != nil {
		return 0, ErrEnded
	}
	began := time.Now()
	defer p.resume()                           // also if it was stopped when the time was just up
	defer context.AfterFunc(ctx, p.resume)()   // do may hang
	defer context.AfterFunc(p.asked, cancel)() //nolint:contextcheck // ctx ends with either
	if err := p.pause(ctx); err != nil {
		return time.Since(began), err
	}
	err := do(ctx)
	still, lookErr := p.allStopped()
	took := time.Since(began)
	switch {
	case p.asked.Err() != nil:
		return took, ErrEnded
	case ctx.Err() != nil:
		return took, context.Cause(ctx)
	case lookErr != nil:
		return took, errors.Join(err, lookErr)
	case !still:
		return took, errors.Join(err, errWentOn)
	}
	return took, err
}

// errWentOn is why a copy is not taken: somebody has sent SIGCONT.
var errWentOn = errors.New("the program did not stand still all the time, because another process made it go on")

// attempt is how long the processes of a group get to stop. One that has forked by vfork
// cannot stop before its child has gone on, which has been stopped: then all of them go
// on for a moment.
const attempt = 250 * time.Millisecond

// pause stops all processes of the group, and returns when they stand still: a process
// that is in the middle of a write finishes it first.
func (p *Group) pause(ctx context.Context) error {
	for ctx.Err() == nil {
		p.Signal(sigStop)
		stopped, err := p.standsStill(ctx, time.Now().Add(attempt))
		if stopped || err != nil {
			return err
		}
		p.resume()
		select {
		case <-time.After(look):
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}

func (p *Group) standsStill(ctx context.Context, until time.Time) (bool, error) {
	for wait := 100 * time.Microsecond; time.Now().Before(until); wait = min(2*wait, look) {
		if still, err := p.allStopped(); still || err != nil {
			return still, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
	return false, nil
}

// allStopped reports whether all processes of the group stand still now.
func (p *Group) allStopped() (bool, error) {
	all, err := members(p.pid)
	if err != nil {
		return false, fmt.Errorf("finding out whether the program stands still: %w", err)
	}
	running, first := 0, false
	for _, m := range all {
		if m.state == alive {
			running++
		}
		first = first || m.pid == p.pid && m.state != dead
	}
	if !first {
		return false, ErrEnded
	}
	return running == 0, nil
}

// A member is a process of a group.
type member struct {
	pid   int
	state processState
}

type processState int

const (
	alive processState = iota // or about to stop
	stopped
	dead // and not collected yet
)
