package gcs

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/holdfast-io/holdfast/internal/httpclient"
)

// StallTimeout is how long a request may go on without a byte moving in either
// direction, the wait for the response included. Then it is ended with a retryable
// error.
const StallTimeout = httpclient.StallTimeout

// LowestRate is the number of bytes per second that a request must move, on average
// over five minutes. A slower request is ended with a retryable error. On a slow
// link, run fewer requests at once.
const LowestRate = httpclient.LowestRate

// writeBuffer is large enough for one chunk of an upload with its HTTP framing, in
// bytes. The SDK does not announce the length of a body, so net/http sends it in
// chunks of 32 KiB, the size of io.Copy's buffer. With its default buffer of 4 KiB,
// net/http makes three system calls for each chunk, which took half of the CPU time
// of an upload.
const writeBuffer = 33 << 10

// newTransport returns a transport for one store alone. It takes the proxy from
// HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
func newTransport() *http.Transport {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, WriteBufferSize: writeBuffer}
	httpclient.Tune(t)
	return t
}

// guard returns a client that sends requests as the given one does, with the rules of
// guarded. It follows no redirect, because Create must send only one request.
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

// guarded makes the SDK keep the contract of backend.Store:
//
//   - a download sends only one request;
//   - a request ends in time;
//   - a request body that was cut off never looks complete;
//   - the SDK sees a successful answer only if it comes from Cloud Storage.
type guarded struct{ next http.RoundTripper }

func (g *guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	call, _ := req.Context().Value(onlyKey{}).(*onlyRequest)
	if err := call.send(); err != nil {
		return nil, err // a download has no request body to close
	}
	req = req.WithContext(req.Context()) // a shallow copy that may be changed
	askForKind(req)
	body := &multipartBody{ReadCloser: req.Body}
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = body
	}
	resp, err := httpclient.Do(req, g.next.RoundTrip)
	if err != nil {
		return nil, mismatch(err)
	}
	body.answered.Store(true)
	if call != nil {
		resp.Body = &download{resp.Body, call}
	}
	if err := vet(req, resp); err != nil {
		_ = resp.Body.Close() // the connection cannot be used again
		return nil, err
	}
	return resp, nil
}

// mismatch marks an error which shows that only one end of the connection speaks TLS.
// In an error about the first record of a server, before a request was sent, Conn is
// not nil. A TLS server may answer a plain request by an alert, which is a record of
// type 0x15. net/http has no error type for an answer that is not HTTP.
func mismatch(err error) error {
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record) && record.Conn != nil:
		return &schemeError{err, speaksPlain}
	case strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`):
		return &schemeError{err, speaksTLS}
	}
	return err
}

type onlyKey struct{}

// only returns a context for a download that may send only one request. When a
// download breaks off, the SDK requests the rest of it, even if retries are off.
func only(ctx context.Context) context.Context {
	return context.WithValue(ctx, onlyKey{}, new(onlyRequest))
}

// onlyRequest belongs to one download, which does one thing at a time. A nil
// *onlyRequest allows any number of requests.
type onlyRequest struct {
	sent bool
	cut  error // the error that ended its response early
}

// send refuses the second request. The error is the one for which the SDK sends that.
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

// multipartBody is the SDK's multipart reader with a different end. (If an upload is
// cancelled, that reader also returns the boundary that ends a complete body. A
// server that got it would store a truncated object as complete. Package httpclient
// prevents this.)
type multipartBody struct {
	io.ReadCloser
	answered atomic.Bool
}

func (b *multipartBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.ErrClosedPipe) && b.answered.Load() {
		// The SDK closes the multipart reader when the header of the answer arrives.
		// If the service answered at the last boundary, the end of the body may not
		// have been read yet. With an error there, HTTP/2 would drop the body of the
		// answer.
		return n, io.EOF
	}
	return n, err
}

// download is a response body that records the error by which it ended early.
type download struct {
	io.ReadCloser
	call *onlyRequest
}

func (b *download) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.call.cut = err
	}
	return n, err
}
