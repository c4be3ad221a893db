//go:build !linux && !darwin

package httpclient

import "syscall"

// boundUnsent does nothing where it is not known how.
func boundUnsent(_, _ string, _ syscall.RawConn) error { return nil }
