package local

import (
	"os"
	"runtime"
	"syscall"
	"testing"
)

// asNobody calls f without the privileges of root, to which modes mean nothing.
// f calls no t.Fatal and starts no goroutine that matters.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		err := syscall.Setfsuid(65534)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
