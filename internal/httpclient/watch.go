// Package httpclient is what the drivers of HTTP services share, whoever the
// vendor is: connections of a store's own, and requests that end in time.
package httpclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"sync"
	"time"
)

// StallTimeout is how long a request may go without a byte moving in either
// direction, waiting for the response included, before it is ended with an
// error that is worth another attempt. S3 itself hangs up after about 20 s.
const StallTimeout = 30 * time.Second

// LowestRate is how many bytes a second a request moves at the least, both
// directions together: a link of 64 KiB/s gives twice as much to each of 8 requests,
// which is with how many a job begins. A slower request is
// ended, so that a server which sends a byte now and then does not hold it for
// ever. By this rate an object of 16 MiB may take 68 minutes, and one of 64 MiB
// four and a half hours.
const LowestRate = 4 << 10

const (
	// rateWindow is the time over which the rate is measured. A request of a few bytes
	// fits into one window even with pauses just short of a stall. So a request takes at
	// most the time of its bytes at the lowest rate, plus one window and one stall.
	rateWindow = 10 * StallTimeout

	// maxAnswer bounds an answer that is not the data of an object, in bytes. The largest
	// such answer is a list of 1,000 keys of 1 KiB with every character escaped, which
	// fits.
	maxAnswer = 16 << 20
)

// Do sends a request through send, which is a client's Do or a transport's
// RoundTrip, and ends it when it stalls, when it is slower than LowestRate, or
// when it has no Range header, by which the data of objects is asked for, and is
// answered without end. The request is watched until the response's body is
// closed. How it was ended is an error that is worth another attempt.
//
// The body of a request that has ended, for whatever reason, fails when it is
// read on: net/http may not have heard of it yet, and what it sends must not
// look whole.
func Do(req *http.Request, send func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	return defaults.do(req, send)
}

// limits are those of one request.
type limits struct {
	stall  time.Duration // without a byte
	window time.Duration // to move as many bytes in as the rate demands
	rate   int64         // in bytes a second
}

var defaults = limits{StallTimeout, rateWindow, LowestRate}

// quota is how many bytes are to move in each window.
func (l limits) quota() int64 { return int64(l.window.Seconds() * float64(l.rate)) }

func (l limits) do(req *http.Request, send func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{caller: req.Context(), ctx: ctx, cancel: cancel, limits: l, since: time.Now()}
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
	w.moved(0) // the head of the response, which is no data
	most := int64(maxAnswer)
	if req.Header.Get("Range") != "" {
		most = math.MaxInt64 // the driver reads what it has asked for
	}
	resp.Body = &responseBody{resp.Body, w, most}
	return resp, nil
}

// A watch ends a request that breaks its limits.
type watch struct {
	caller context.Context // whoever made the request waits for its end
	ctx    context.Context // the request's, derived from it
	cancel context.CancelCauseFunc
	limits limits
	timer  *time.Timer

	mu    sync.Mutex
	since time.Time // the window's begin
	bytes int64     // that have moved in it
}

// moved counts n bytes that were sent or received. If too few moved in the window, it ends
// the request. Otherwise it starts the stall timer again, unless the request has ended.
func (w *watch) moved(n int) {
	if err := w.count(n); err != nil {
		w.cancel(err)
		return
	}
	if w.timer.Stop() {
		w.timer.Reset(w.limits.stall)
	}
}

// count adds n bytes to the window's. If that is over it begins another, or
// returns an error if too few have moved.
func (w *watch) count(n int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes += int64(n)
	took := time.Since(w.since)
	if took < w.limits.window {
		return nil
	}
	if w.bytes < w.limits.quota() {
		return limitError(fmt.Sprintf("only %d bytes moved in %v, fewer than %d a second",
			w.bytes, took.Round(time.Millisecond), w.limits.rate))
	}
	w.since, w.bytes = time.Now(), 0
	return nil
}

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// ended returns why the request has ended, or nil. A context has an error before
// anyone who waits for its end hears of it, and before those derived from it do.
func (w *watch) ended() error { return cmp.Or(w.caller.Err(), context.Cause(w.ctx)) }

// explain returns the limit that was broken instead of the cancellation that it caused.
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

// Timeout tells the caller that fewer requests at a time may get through.
func (limitError) Timeout() bool { return true }

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
		b.watch.moved(n)
	}
	return n, err
}

// responseBody tells the watch of each read, and ends it when it is closed.
type responseBody struct {
	io.ReadCloser
	watch *watch
	left  int64 // how many bytes it may have yet
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, limitError(fmt.Sprintf("its answer has more than %d MiB", maxAnswer>>20))
	}
	if n > 0 {
		b.watch.moved(n)
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
