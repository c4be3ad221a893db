//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// takeOverSignal tells a standby to take over. A signal needs no port and no secret: only who
// may end this process can send it.
const takeOverSignal = syscall.SIGUSR1

// notify returns the signals that are passed on to a program. One that this process was
// started to ignore, as by nohup, stays ignored.
func notify() (signals <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 64)
	for _, sig := range []os.Signal{
		syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGALRM, syscall.SIGWINCH,
	} {
		if !signal.Ignored(sig) {
			signal.Notify(c, sig)
		}
	}
	return c, func() { signal.Stop(c) }
}
