//go:build unix && !race

package checkpoint_test

import (
	"syscall"
	"time"
)

// processorTime returns how long this process has used a processor.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
