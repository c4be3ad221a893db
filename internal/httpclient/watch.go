// Package httpclient is what the drivers of HTTP services share, whoever the
// vendor is: connections of a store's own, and requests that end in time.
package httpclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// StallTimeout is how long a request may go without a byte moving in either
// direction, waiting for the response included, before it is ended with an
// error that is worth another attempt. S3 itself hangs up after about 20 s.
const StallTimeout = 30 * time.Second

// Do sends a request through send, which is a client's Do or a transport's
// RoundTrip, and ends it when it stalls. The request is watched until the
// response's body is closed.
//
// The body of a request that has ended, for whatever reason, fails when it is
// read on: net/http may not have heard of it yet, and what it sends must not
// look whole.
func Do(req *http.Request, send func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	return limits{stall: StallTimeout}.do(req, send)
}

// limits are those of one request.
type limits struct {
	stall time.Duration // without a byte
}

func (l limits) do(req *http.Request, send func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{caller: req.Context(), ctx: ctx, cancel: cancel, limits: l}
	w.timer = time.AfterFunc(l.stall, func() { cancel(stalled(l)) })
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &requestBody{req.Body, w}
	}
	resp, err := send(req)
	if err != nil {
		err = w.explain(err)
		w.stop()
		return nil, err
	}
	w.moved()
	resp.Body = &responseBody{resp.Body, w}
	return resp, nil
}

// A watch ends a request that breaks its limits.
type watch struct {
	caller context.Context // whoever made the request waits for its end
	ctx    context.Context // the request's, derived from it
	cancel context.CancelCauseFunc
	limits limits
	timer  *time.Timer
}

// moved gives the request its full time anew, unless it has ended.
func (w *watch) moved() {
	if w.timer.Stop() {
		w.timer.Reset(w.limits.stall)
	}
}

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// ended returns why the request has ended, or nil. A context has an error before
// anyone who waits for its end hears of it, and before those derived from it do.
func (w *watch) ended() error { return cmp.Or(w.caller.Err(), context.Cause(w.ctx)) }

// explain puts the broken limit in the place of the cancelled context that it
// caused.
func (w *watch) explain(err error) error {
	var limit limitError
	if errors.As(context.Cause(w.ctx), &limit) {
		return limit
	}
	return err
}

// A limitError says which limit a request has broken. It is none of the
// context's errors, which are the caller's own limits.
type limitError string

func (e limitError) Error() string { return "request ended because " + string(e) }

func stalled(l limits) limitError {
	return limitError(fmt.Sprintf("no byte moved for %v", l.stall))
}

// requestBody tells the watch of each read, and gives nothing once the request
// has ended.
type requestBody struct {
	io.ReadCloser
	watch *watch
}

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if ended := b.watch.ended(); ended != nil {
		return 0, ended
	}
	if n > 0 {
		b.watch.moved()
	}
	return n, err
}

// responseBody tells the watch of each read, and ends it when it is closed.
type responseBody struct {
	io.ReadCloser
	watch *watch
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.watch.moved()
	}
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	return n, b.watch.explain(err)
}

func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	b.watch.stop()
	return err
}

// Ended returns why a caller's context ended, or nil. The network may notice a
// deadline a moment before the context does.
func Ended(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}
