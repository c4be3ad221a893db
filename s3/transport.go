package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
)

// StallTimeout is how long a request may go without a byte moving in either
// direction, waiting for the response included, before it is ended with an
// error that is worth another attempt. S3 itself hangs up after about 20 s.
const StallTimeout = 30 * time.Second

const (
	dialTimeout = 10 * time.Second // both shorter than StallTimeout, so that
	tlsTimeout  = 10 * time.Second // the error says which step it was

	// idleConns is how many connections stay open between requests: as many as
	// a process is likely to use at once. A connection too many costs little,
	// one too few a TLS handshake for each request.
	idleConns = 128
)

// tune sets up the transport of a store that owns it.
func tune(t *http.Transport) {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	t.DialContext = dialer.DialContext
	t.TLSHandshakeTimeout = tlsTimeout
	t.MaxIdleConns, t.MaxIdleConnsPerHost = idleConns, idleConns // there is one host
	// Parallel transfers want a TCP connection each; HTTP/2 would put them on one.
	t.ForceAttemptHTTP2 = false
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	if t.TLSClientConfig != nil { // may offer HTTP/2 still, from before
		t.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
}

// direct sends requests through a transport as they are. A redirect is the
// answer: its target would not accept the signature, and Create sends one
// request at most.
type direct struct{ transport *http.Transport }

func (d direct) Do(req *http.Request) (*http.Response, error) { return d.transport.RoundTrip(req) }

// watched is an HTTP client that ends requests that stall.
type watched struct {
	next  sdk.HTTPClient
	limit time.Duration
}

func (w *watched) Do(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	d := &watchdog{ctx: ctx, cancel: cancel, limit: w.limit}
	d.timer = time.AfterFunc(w.limit, func() { cancel(&stalledError{w.limit}) })
	req = req.WithContext(ctx)
	if req.Body != nil {
		req.Body = &movingBody{req.Body, d}
	}
	resp, err := w.next.Do(req)
	if err != nil {
		d.stop()
		return nil, d.explain(err)
	}
	d.moved()
	resp.Body = &responseBody{movingBody{resp.Body, d}}
	return resp, nil
}

// A watchdog cancels a request unless something moves.
type watchdog struct {
	ctx    context.Context // the request's
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

// moved gives the request its full time anew, unless it has ended.
func (d *watchdog) moved() {
	if d.timer.Stop() {
		d.timer.Reset(d.limit)
	}
}

func (d *watchdog) stop() {
	d.timer.Stop()
	d.cancel(nil)
}

// explain puts the stall in the place of the cancelled context that it caused.
func (d *watchdog) explain(err error) error {
	var stalled *stalledError
	if errors.As(context.Cause(d.ctx), &stalled) {
		return stalled
	}
	return err
}

type stalledError struct{ limit time.Duration }

func (e *stalledError) Error() string {
	return fmt.Sprintf("request ended because no byte moved for %v", e.limit)
}

// movingBody tells the watchdog of each read.
type movingBody struct {
	io.ReadCloser
	dog *watchdog
}

func (b *movingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.dog.moved()
	}
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	return n, b.dog.explain(err)
}

// responseBody ends the watch when it is closed.
type responseBody struct{ movingBody }

func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	b.dog.stop()
	return err
}
