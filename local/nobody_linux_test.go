package local

import (
	"os"
	"runtime"
	"syscall"
	"testing"
)

// asNobody calls f without the privileges of root, who may ignore modes. If f calls
// t.Fatal, that ends only f.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := syscall.Setfsuid(65534)
		defer func() { done <- err }() // also if f fails the test
		if err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
