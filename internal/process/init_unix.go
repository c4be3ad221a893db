//go:build linux || darwin

package process

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// IsInit reports whether this process is the first of its PID namespace, as the entry
// point of a container is: then orphans are its children, and nobody else collects them.
func IsInit() bool { return os.Getpid() == 1 }

// Init runs this process's own command line again as a child, passes signals on to it, and
// collects every process that ends, until the child has ended. It returns the child's exit
// code. So what waits for processes of its own need not know of orphans.
func Init() (code int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	defer signal.Stop(signals)
	pid, err := syscall.ForkExec(self, os.Args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return 0, fmt.Errorf("starting %s again: %w", self, err)
	}
	done := make(chan struct{})
	defer close(done)
	go forward(signals, pid, done)
	return collect(pid)
}

// forward passes signals on. Those that are about this process's own children, or its own
// pipes and threads, are not.
func forward(signals <-chan os.Signal, pid int, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case s := <-signals:
			switch sig := s.(syscall.Signal); sig {
			case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE:
			default:
				_ = syscall.Kill(pid, sig) // it may have ended just now
			}
		}
	}
}

// collect waits for all children until the one with that number has ended.
func collect(child int) (code int, err error) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR), err == nil && pid != child:
			continue
		case err != nil:
			return 0, fmt.Errorf("waiting for children: %w", err)
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		}
		return status.ExitStatus(), nil
	}
}
