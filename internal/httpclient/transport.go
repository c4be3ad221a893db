package httpclient

import (
	"net"
	"net/http"
	"time"
)

const (
	dialTimeout = 10 * time.Second // both shorter than StallTimeout, so that
	tlsTimeout  = 10 * time.Second // the error says which step it was

	// idleConns is how many connections stay open between requests: as many as
	// a process is likely to use at once. A connection too many costs little,
	// one too few a TLS handshake for each request.
	idleConns = 128
)

// Tune sets up the transport of a store that owns it, and that talks to one
// host.
func Tune(t *http.Transport) {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second, Control: boundUnsent}
	t.DialContext = dialer.DialContext
	t.TLSHandshakeTimeout = tlsTimeout
	t.MaxIdleConns, t.MaxIdleConnsPerHost = idleConns, idleConns
	t.IdleConnTimeout = 90 * time.Second // net/http's default
	// Parallel transfers want a TCP connection each; HTTP/2 would put them on
	// one. (gcsfuse made the same choice.)
	t.ForceAttemptHTTP2 = false
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	if t.TLSClientConfig != nil { // may offer HTTP/2 still, from before
		t.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
}
