//go:build linux || darwin

package process

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	sigStop = syscall.SIGSTOP
	sigCont = syscall.SIGCONT
)

func kill(pid int, sig syscall.Signal) error { return syscall.Kill(pid, sig) }

// Start starts a program. If this process is in the foreground of its terminal, the
// program is from then on, until it has ended; if it is suspended (by Ctrl-Z, say), this
// process is too, and both go on together. On Linux it is killed when this process dies.
func Start(c Command) (*Group, error) {
	path, err := LookPath(c.Args[0])
	if err != nil {
		return nil, err
	}
	p := newGroup()
	p.terminal = terminalOf(c.Stdin)
	cmd := &exec.Cmd{
		Path: path, Args: c.Args, Env: c.Env, Dir: c.Dir, ExtraFiles: c.Keep,
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, SysProcAttr: attributes(p.terminal),
	}
	started := make(chan error, 1)
	go func() {
		// The system kills the program when the thread that has started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.wait(cmd)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting the program: %w", err)
	}
	return p, nil
}

func attributes(t *terminal) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(attr)
	if t != nil {
		attr.Foreground, attr.Ctty = true, t.fd
	}
	return attr
}

// SignalByName returns the signal with a name such as USR1 or SIGUSR1.
func SignalByName(name string) (syscall.Signal, bool) {
	for _, name := range []string{name, "SIG" + name} {
		if sig := unix.SignalNum(name); sig != 0 {
			return sig, true
		}
	}
	return 0, false
}
