//go:build unix && !linux

package local

import (
	"os"
	"testing"
)

// asNobody calls f, which is about modes: they mean nothing to root.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Skip("run as root, who may do everything; run the tests as another user")
	}
	f()
}
