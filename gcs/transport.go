package gcs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// StallTimeout is how long a request may go without a byte moving in either
// direction, waiting for the response included, before it is ended with an
// error that is worth another attempt.
const StallTimeout = 30 * time.Second

const (
	dialTimeout = 10 * time.Second // both shorter than StallTimeout, so that
	tlsTimeout  = 10 * time.Second // the error says which step it was

	// idleConns is how many connections stay open between requests: as many as
	// a process is likely to use at once. A connection too many costs little,
	// one too few a TLS handshake for each request.
	idleConns = 128

	// writeBuffer holds one chunk of an upload with its frame. The SDK does not
	// say how long a body is, so that net/http sends it in chunks, each as large
	// as io.Copy's buffer, 32 KiB; with its own buffer of 4 KiB it takes three
	// writes for each. That was half of the CPU time of an upload.
	writeBuffer = 33 << 10
)

// newTransport returns the transport of a store that owns it. It finds a proxy
// in HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: tlsTimeout,
		MaxIdleConnsPerHost: idleConns,
		IdleConnTimeout:     90 * time.Second,
		WriteBufferSize:     writeBuffer,
		// Parallel transfers want a TCP connection each; HTTP/2 would put them
		// on one. (gcsfuse made the same choice.)
		Protocols: new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// guard returns a client that sends as the given one does, under the rules of
// guarded. It follows no redirect: Create sends one request at most.
func guard(client *http.Client) *http.Client {
	next := client.Transport
	if next == nil {
		next = http.DefaultTransport
	}
	return &http.Client{
		Transport:     &guarded{next},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// guarded holds the SDK to what the contract says about requests: a download is
// one, a request ends when nothing moves, and its body never looks whole when it
// is not.
type guarded struct{ next http.RoundTripper }

func (g *guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	call, _ := req.Context().Value(onlyKey{}).(*onlyRequest)
	if err := call.send(); err != nil {
		return nil, err // a download has no body to close
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	dog := &watchdog{caller: req.Context(), ctx: ctx, cancel: cancel}
	dog.timer = time.AfterFunc(StallTimeout, func() { cancel(errStalled) })
	req = req.WithContext(ctx)
	body := &requestBody{ReadCloser: req.Body, dog: dog}
	if req.Body != nil {
		req.Body = body
	}
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		err = dog.explain(err)
		dog.stop()
		return nil, err
	}
	dog.moved()
	body.answered.Store(true)
	resp.Body = &responseBody{resp.Body, dog, call}
	return resp, nil
}

type onlyKey struct{}

// only returns a context for a download that may send one request. When it
// breaks off, the SDK asks for the rest of it by another one, whatever is said
// about retries.
func only(ctx context.Context) context.Context {
	return context.WithValue(ctx, onlyKey{}, new(onlyRequest))
}

// onlyRequest belongs to one download, which sends and reads one thing at a time.
// A nil one bounds nothing.
type onlyRequest struct {
	sent bool
	cut  error // why its response ended early
}

// send refuses the second request, with the reason for which the SDK sends it.
func (r *onlyRequest) send() error {
	switch {
	case r == nil:
		return nil
	case r.cut != nil:
		return r.cut
	case r.sent:
		return errors.New("the SDK sent a second request for one download")
	}
	r.sent = true
	return nil
}

// A watchdog cancels a request unless something moves.
type watchdog struct {
	caller context.Context // the SDK waits for its end
	ctx    context.Context // the request's, derived from it
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

// moved gives the request its full time anew, unless it has ended.
func (d *watchdog) moved() {
	if d.timer.Stop() {
		d.timer.Reset(StallTimeout)
	}
}

// ended returns why the request has ended, or nil. A context has an error before
// anyone who waits for its end hears of it, and before those derived from it do.
func (d *watchdog) ended() error { return cmp.Or(d.caller.Err(), context.Cause(d.ctx)) }

func (d *watchdog) stop() {
	d.timer.Stop()
	d.cancel(nil)
}

// explain puts the stall in the place of the cancelled context that it caused.
func (d *watchdog) explain(err error) error {
	if errors.Is(context.Cause(d.ctx), errStalled) {
		return errStalled
	}
	return err
}

var errStalled = fmt.Errorf("request ended because no byte moved for %v", StallTimeout)

// requestBody tells the watchdog of each read, and mends how the SDK's
// multipart reader ends.
type requestBody struct {
	io.ReadCloser
	dog      *watchdog
	answered atomic.Bool
}

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if ended := b.dog.ended(); ended != nil {
		// The multipart reader answers a cancelled upload with the boundary that
		// ends a whole one, and whoever reads that far has a truncated object that
		// looks complete.
		return 0, ended
	}
	if n > 0 {
		b.dog.moved()
	}
	if errors.Is(err, io.ErrClosedPipe) && b.answered.Load() {
		// The SDK closes the multipart reader when it has the head of the answer.
		// If the service answered at the last boundary, the body's end may not be
		// read yet, and an error there makes HTTP/2 give up the answer's body.
		return n, io.EOF
	}
	return n, err
}

// responseBody tells the watchdog of each read, and ends the watch when it is
// closed.
type responseBody struct {
	io.ReadCloser
	dog  *watchdog
	call *onlyRequest
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.dog.moved()
	}
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	err = b.dog.explain(err)
	if b.call != nil {
		b.call.cut = err
	}
	return n, err
}

func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	b.dog.stop()
	return err
}
