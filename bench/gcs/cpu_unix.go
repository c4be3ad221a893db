//go:build unix

package main

import (
	"syscall"
	"time"
)

// cpu returns the time that this process has used. (The server is another.)
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no reason to
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
