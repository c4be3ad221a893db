//go:build linux || darwin

package process

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A terminal is that of this process, when it was in the foreground of it. A nil one does
// nothing.
type terminal struct {
	fd  int
	own int // the process group of this process
}

// terminalOf returns the terminal that a file is, or nil if it is none, or this process is not
// in the foreground of it.
func terminalOf(stdin *os.File) *terminal {
	if stdin == nil {
		return nil
	}
	t := &terminal{int(stdin.Fd()), unix.Getpgrp()}
	if t.foreground() != t.own {
		return nil
	}
	return t
}

// unknown is no group. 0 is one: that of this process, as a PID namespace shows a group that was
// made outside of it.
const unknown = -1

// foreground returns the group that is in the foreground.
func (t *terminal) foreground() int {
	group, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)
	if err != nil {
		return unknown // it is no terminal, or was hung up
	}
	return group
}

// pass puts a group into the foreground, if another one is there.
func (t *terminal) pass(from, to int) {
	if t.foreground() != from {
		return // somebody else has seen to it: a shell
	}
	// The system stops a process in the background that does this, unless it ignores that.
	signal.Ignore(syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTTOU)
	_ = unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, to) // it may have been hung up just now
}

// takeBack puts this process into the foreground after a program's group.
func (t *terminal) takeBack(group int) {
	if t != nil {
		t.pass(group, t.own)
	}
}

// suspend stops this process, and all of its own group, because the program was stopped: by
// Ctrl-Z, say, or because it wants to read from the terminal in the background. The shell that
// has started this process learns only so that its job was stopped. When this process goes on,
// the program does: in the foreground, if this process is put there.
func (p *Group) suspend() {
	p.pausing.Lock() // while it is held by a pause, it is that which has stopped the program
	defer p.pausing.Unlock()
	if !p.firstIsStopped() {
		return
	}
	t := p.terminal
	switch t.foreground() {
	case unknown:
		return // it was hung up
	case t.own:
		// A shell has continued this process, and knows nothing of the program's group, which
		// was stopped in the background.
	default:
		t.takeBack(p.pid)
		stopOwnGroup()
	}
	t.pass(t.own, p.pid)
	p.resume()
}

// stopsBeforeItsEnd waits until a child is stopped, or has ended, and reports whether it is
// stopped. It does not collect it.
func stopsBeforeItsEnd(pid int) bool {
	const isStopped = 5 // CLD_STOPPED of signal.h
	if waitFor(pid, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT) != isStopped {
		return false
	}
	waitFor(pid, unix.WSTOPPED|unix.WNOHANG) // so that it is not told again
	return true
}

// waitForEnd waits until a child has ended, and does not collect it.
func waitForEnd(pid int) { waitFor(pid, unix.WEXITED|unix.WNOWAIT) }

// stopTime is how long it may take to be stopped by one's own signal. In a group without a shell
// that could continue it, there is no stop at all.
const stopTime = 100 * time.Millisecond

// stopOwnGroup stops the group of this process, and returns when it goes on.
func stopOwnGroup() {
	goesOn := make(chan os.Signal, 1)
	signal.Notify(goesOn, syscall.SIGCONT)
	defer signal.Stop(goesOn)
	_ = syscall.Kill(0, syscall.SIGTSTP)
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-goesOn:
	case <-timer.C:
	}
}

func (p *Group) firstIsStopped() bool {
	all, err := members(p.pid)
	if err != nil {
		return false
	}
	for _, m := range all {
		if m.pid == p.pid {
			return m.state == stopped
		}
	}
	return false
}
