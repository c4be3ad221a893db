//go:build !unix

package main

import (
	"os"
	"os/signal"
)

// notify returns the signals that are passed on to a program.
func notify() (signals <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 64)
	signal.Notify(c, os.Interrupt)
	return c, func() { signal.Stop(c) }
}
