//go:build linux || darwin

package httpclient

import (
	"context"
	"net"
	"net/http"
	"syscall"
	"testing"
)

// What a connection has taken is on its way, but for little of it.
func TestUnsentIsBounded(t *testing.T) {
	url, transport := serve(t, func(http.ResponseWriter, *http.Request) {})
	dial := transport.DialContext
	var conn net.Conn
	transport.DialContext = func(ctx context.Context, network, address string) (_ net.Conn, err error) {
		conn, err = dial(ctx, network, address)
		return conn, err
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(t, defaults, req, transport.RoundTrip); err != nil {
		t.Fatal(err)
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var bound int
	var failed error
	err = raw.Control(func(fd uintptr) {
		bound, failed = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, notSentLowat)
	})
	if err != nil || failed != nil || bound != maxUnsent {
		t.Errorf("%d bytes, %v, %v; want %d", bound, err, failed, maxUnsent)
	}
}
