//go:build linux || darwin

package httpclient

import (
	"runtime"
	"syscall"
)

// maxUnsent is how many bytes of what was written to a connection may wait in the
// system's buffer to be sent. Left alone, that grows to megabytes. On a slow link
// they take longer than a request may stall, and what was written looks as if it
// had moved: on one of 64 KiB/s, one of four uploads was ended for a stall.
const maxUnsent = 128 << 10

// notSentLowat is the number of the socket option TCP_NOTSENT_LOWAT, for which
// package syscall has no name.
var notSentLowat = map[string]int{"linux": 25, "darwin": 0x201}[runtime.GOOS]

// boundUnsent is for net.Dialer's Control. Where the option fails, the connection
// is as good as one without it.
func boundUnsent(_, _ string, conn syscall.RawConn) error {
	return conn.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, notSentLowat, maxUnsent)
	})
}
