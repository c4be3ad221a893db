//go:build !unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// takeOverSignal is none: there is no such signal here.
const takeOverSignal = syscall.Signal(-1)

// notify returns the signals that are passed on to a program.
func notify() (signals <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 64)
	signal.Notify(c, os.Interrupt)
	return c, func() { signal.Stop(c) }
}
