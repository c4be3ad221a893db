//go:build unix && !linux

package local

import (
	"os"
	"testing"
)

// asNobody calls f, which tests modes. It skips the test for root, who may ignore
// modes.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Skip("run as root, who may do everything; run the tests as another user")
	}
	f()
}
