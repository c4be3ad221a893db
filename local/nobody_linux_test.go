package local

import (
	"os"
	"runtime"
	"syscall"
	"testing"
)

// asNobody calls f without the privileges of root, to which modes mean nothing.
// When f calls t.Fatal, that ends f alone.
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
		defer func() { done <- err }() // also when f fails the test
		if err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
