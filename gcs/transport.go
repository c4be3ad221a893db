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

// StallTimeout is how long a request may go without a byte moving in either
// direction, waiting for the response included, before it is ended with an
// error that is worth another attempt.
const StallTimeout = httpclient.StallTimeout

// LowestRate is how many bytes a second a request moves at the least, taken over
// five minutes, before it is ended in the same way. A link so slow that it does
// not give that to each request wants fewer at once.
const LowestRate = httpclient.LowestRate

// writeBuffer holds one chunk of an upload with its frame, in bytes. The SDK
// does not say how long a body is, so that net/http sends it in chunks, each as
// large as io.Copy's buffer, 32 KiB; with its own buffer of 4 KiB it takes three
// writes for each. That was half of the CPU time of an upload.
const writeBuffer = 33 << 10

// newTransport returns the transport of a store that owns it. It finds a proxy
// in HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
func newTransport() *http.Transport {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, WriteBufferSize: writeBuffer}
	httpclient.Tune(t)
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
// one, a request ends in time, its body never looks whole when it is not, and
// its answer is Cloud Storage's before the SDK takes it for one.
type guarded struct{ next http.RoundTripper }

func (g *guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	call, _ := req.Context().Value(onlyKey{}).(*onlyRequest)
	if err := call.send(); err != nil {
		return nil, err // a download has no body to close
	}
	req = req.WithContext(req.Context()) // a copy, to be changed
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
		_ = resp.Body.Close() // the connection is given up
		return nil, err
	}
	return resp, nil
}

// mismatch marks an error that says that one end alone speaks TLS. Conn is set
// in an error about the first record that a server sends, when no request is on
// its way yet. A server with TLS may answer a plain request by an alert, which is
// a record of type 0x15, and net/http has no type for what is no HTTP.
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

// multipartBody is the SDK's multipart reader, but for how that ends. (It also
// answers a cancelled upload with the boundary that ends a whole one. Whoever
// reads that far has a truncated object that looks complete; package httpclient
// does not let it through.)
type multipartBody struct {
	io.ReadCloser
	answered atomic.Bool
}

func (b *multipartBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.ErrClosedPipe) && b.answered.Load() {
		// The SDK closes the multipart reader when it has the head of the answer.
		// If the service answered at the last boundary, the body's end may not be
		// read yet, and an error there makes HTTP/2 give up the answer's body.
		return n, io.EOF
	}
	return n, err
}

// download is a response's body that notes why it ended early.
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
