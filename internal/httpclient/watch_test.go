package httpclient

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type send func(*http.Request) (*http.Response, error)

// newRequest returns a request with a body, which may be nil.
func newRequest(t *testing.T, ctx context.Context, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://store.test/key", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// exchange sends a request and reads the answer to its end.
func exchange(t *testing.T, l limits, req *http.Request, send send) (string, error) {
	t.Helper()
	resp, err := l.do(req, send)
	if err != nil {
		if resp != nil {
			t.Errorf("an answer beside %v", err)
		}
		return "", err
	}
	data, err := io.ReadAll(resp.Body)
	return string(data), errors.Join(err, resp.Body.Close())
}

func wantStalled(t *testing.T, err error, after string) {
	t.Helper()
	if err == nil || err.Error() != "request ended because no byte moved for "+after {
		t.Errorf("got %v, want a stall of %s", err, after)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v passes for the caller's context", err)
	}
}

// drip is a body that yields each of its parts after a pause, and at the end
// hangs until the request is ended, if it is to.
type drip struct {
	ctx   context.Context
	parts []string
	pause time.Duration
	hang  bool
}

func (d *drip) Read(p []byte) (int, error) {
	wake := time.After(d.pause)
	if len(d.parts) == 0 {
		if !d.hang {
			return 0, io.EOF
		}
		wake = nil
	}
	select {
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	case <-wake:
	}
	n := copy(p, d.parts[0]) // which has room for it
	d.parts = d.parts[1:]
	return n, nil
}

func (d *drip) Close() error { return nil }

func answer(body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Body: body}
}

func TestStall(t *testing.T) {
	const pause = StallTimeout - time.Second
	letters := strings.Split("abcde", "")
	for _, test := range []struct {
		name    string
		send    send
		stalled bool
		took    time.Duration
	}{
		{"no response", func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, true, StallTimeout},
		{"body stops", func(r *http.Request) (*http.Response, error) {
			return answer(&drip{r.Context(), letters[:3], time.Second, true}), nil
		}, true, 3*time.Second + StallTimeout},
		{"body is slow", func(r *http.Request) (*http.Response, error) {
			return answer(&drip{r.Context(), letters, pause, false}), nil
		}, false, 5 * pause},
		{"response is slow, and then the body", func(r *http.Request) (*http.Response, error) {
			time.Sleep(pause)
			return answer(&drip{r.Context(), letters, pause, false}), nil
		}, false, 6 * pause},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				resp, err := Do(newRequest(t, t.Context(), nil), test.send)
				var data []byte
				if err == nil {
					data, err = io.ReadAll(resp.Body)
					err = errors.Join(err, resp.Body.Close())
				}
				if test.stalled {
					wantStalled(t, err, "30s")
				} else if err != nil || string(data) != "abcde" {
					t.Errorf("got %q, %v", data, err)
				}
				if took := time.Since(began); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
			})
		})
	}
}

// A body that is sent slowly is no stall.
func TestSlowUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(r *http.Request) (*http.Response, error) {
			for range 3 {
				time.Sleep(StallTimeout - time.Second)
				if _, err := io.ReadFull(r.Body, make([]byte, 1)); err != nil {
					return nil, errors.Join(err, r.Context().Err())
				}
			}
			return answer(http.NoBody), r.Context().Err()
		}
		resp, err := Do(newRequest(t, t.Context(), strings.NewReader("data")), slow)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	})
}

// The caller's context ends a stalled request as the caller's.
func TestStallEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := exchange(t, defaults, newRequest(t, ctx, nil), func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
	})
}

// A body that is read on after the request was ended for its stalling gives
// nothing more, and does not end well.
func TestStalledBodyNeverLooksWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := io.MultiReader(strings.NewReader("sent, "), sleeper(2*StallTimeout), strings.NewReader("and the rest"))
		got, err := sendBody(t, t.Context(), body)
		if got != "sent, " {
			t.Errorf("sent %q", got)
		}
		wantStalled(t, err, "30s")
	})
}

// sleeper is an empty reader that takes its time.
type sleeper time.Duration

func (s sleeper) Read([]byte) (int, error) {
	time.Sleep(time.Duration(s))
	return 0, io.EOF
}

// sendBody sends a request through a transport that reads all it gets, and
// returns what that was.
func sendBody(t *testing.T, ctx context.Context, body io.Reader) (string, error) {
	t.Helper()
	var got []byte
	_, err := exchange(t, defaults, newRequest(t, ctx, body), func(r *http.Request) (_ *http.Response, err error) {
		if got, err = io.ReadAll(r.Body); err == nil {
			err = errors.New("the body looks whole")
		}
		return nil, err
	})
	return string(got), err
}

// Who made the request hears of a cancellation a moment before a context does
// that is derived from the caller's; in that moment the body must not look whole
// either.
func TestBodyEndsWithTheContextOfTheCaller(t *testing.T) {
	got, err := sendBody(t, endedAlone{t.Context()}, strings.NewReader("what was sent, and the rest"))
	if got != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("sent %q, %v, want the end of the context", got, err)
	}
}

// endedAlone has ended, and those derived from it have not heard of it.
type endedAlone struct{ context.Context }

func (endedAlone) Err() error { return context.Canceled }

// A request without a body stays one: net/http would send any other as a body
// of unknown length.
func TestNoBodyStaysNone(t *testing.T) {
	for _, body := range []io.Reader{nil, http.NoBody} {
		_, err := exchange(t, defaults, newRequest(t, t.Context(), body), func(r *http.Request) (*http.Response, error) {
			if r.Body != nil && r.Body != http.NoBody {
				t.Errorf("%v became %v", body, r.Body)
			}
			return answer(http.NoBody), nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// flow is a body of some bytes at a rate, in equal pieces, one each second.
type flow struct {
	ctx  context.Context
	left int
	rate int // bytes a second
}

func (f *flow) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	select {
	case <-f.ctx.Done():
		return 0, f.ctx.Err()
	case <-time.After(time.Second):
	}
	n := min(f.left, f.rate)
	f.left -= n
	return n, nil // p has room, and what is in it does not matter
}

func (f *flow) Close() error { return nil }

// roomy reads into a buffer that has room for each piece of a flow.
func roomy(r io.Reader) (n int, err error) {
	p := make([]byte, 1<<20)
	for err == nil {
		var k int
		k, err = r.Read(p)
		n += k
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// carry sends so many bytes, or has them answered, at a rate, and returns how
// many came to the other side.
func carry(t *testing.T, up bool, size, rate int) (n int, err error) {
	t.Helper()
	req := newRequest(t, t.Context(), nil)
	if up {
		req = newRequest(t, t.Context(), &flow{t.Context(), size, rate})
	} else {
		req.Header.Set("Range", "bytes=0-")
	}
	resp, err := Do(req, func(r *http.Request) (*http.Response, error) {
		if !up {
			return answer(&flow{r.Context(), size, rate}), nil
		}
		if n, err = roomy(r.Body); err != nil {
			return nil, err
		}
		return answer(http.NoBody), nil
	})
	if err != nil {
		return n, err
	}
	if !up {
		n, err = roomy(resp.Body)
	}
	return n, errors.Join(err, resp.Body.Close())
}

// directions runs a test for both of them, by a clock of its own.
func directions(t *testing.T, test func(t *testing.T, up bool)) {
	for name, up := range map[string]bool{"up": true, "down": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, up) })
		})
	}
}

// What moves a byte now and then does not stall, and is ended all the same.
func TestTrickle(t *testing.T) {
	for _, rate := range []int{1, LowestRate - 1} {
		directions(t, func(t *testing.T, up bool) {
			began := time.Now()
			n, err := carry(t, up, rate*3600, rate)
			if err == nil || !strings.HasPrefix(err.Error(), "request ended because only ") || errors.Is(err, context.Canceled) {
				t.Errorf("%d bytes a second: %d came, %v", rate, n, err)
			}
			if took := time.Since(began); took < rateWindow || took > rateWindow+StallTimeout {
				t.Errorf("%d bytes a second: took %v", rate, took)
			}
		})
	}
}

// A slow link is no trickle: also not if all the requests of a job share it.
func TestSlowLink(t *testing.T) {
	for _, test := range []struct{ size, rate int }{{64 << 20, 64 << 10}, {16 << 20, LowestRate}} {
		directions(t, func(t *testing.T, up bool) {
			if n, err := carry(t, up, test.size, test.rate); n != test.size || err != nil {
				t.Errorf("%d bytes a second: %d of %d came, %v", test.rate, n, test.size, err)
			}
		})
	}
}

// What a request has moved at once does not let it trickle for long.
func TestTrickleAfterBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req := newRequest(t, t.Context(), nil)
		req.Header.Set("Range", "bytes=0-")
		began := time.Now()
		_, err := exchange(t, defaults, req, func(r *http.Request) (*http.Response, error) {
			burst := strings.NewReader(strings.Repeat("x", 64<<20))
			return answer(io.NopCloser(io.MultiReader(burst, &flow{r.Context(), 3600, 1}))), nil
		})
		if err == nil || !strings.HasPrefix(err.Error(), "request ended because only ") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > 2*(rateWindow+StallTimeout) {
			t.Errorf("took %v", took)
		}
	})
}

// An answer without the data of an object has an end, however fast it comes.
func TestEndlessAnswer(t *testing.T) {
	long := func(*http.Request) (*http.Response, error) {
		return answer(io.NopCloser(io.LimitReader(endless{}, 64<<20))), nil
	}
	data, err := exchange(t, defaults, newRequest(t, t.Context(), nil), long)
	if err == nil || err.Error() != "request ended because its answer has more than 16 MiB" {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if len(data) > maxAnswer {
		t.Errorf("%d bytes were let through", len(data))
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Whatever comes of a request, nothing that watched it is left behind.
func TestWatchEnds(t *testing.T) {
	for name, give := range map[string]func() (*http.Response, error){
		"answer": func() (*http.Response, error) { return answer(io.NopCloser(strings.NewReader("1234"))), nil },
		"error":  func() (*http.Response, error) { return nil, errors.New("connection gone") },
	} {
		t.Run(name, func(t *testing.T) {
			var sent *http.Request
			_, err := exchange(t, defaults, newRequest(t, t.Context(), nil), func(r *http.Request) (*http.Response, error) {
				sent = r
				return give()
			})
			if sent.Context().Err() == nil {
				t.Errorf("it goes on after it returned %v", err)
			}
		})
	}
}

// serve returns the address of a server, and a transport of its own to it.
func serve(t *testing.T, h http.HandlerFunc) (string, *http.Transport) {
	t.Helper()
	server := httptest.NewServer(h)
	transport := new(http.Transport)
	Tune(transport)
	// Before the server's own Close, which waits for its connections.
	t.Cleanup(server.Close)
	t.Cleanup(transport.CloseIdleConnections)
	return server.URL, transport
}

// discard and write are for servers, whose clients may be gone.
func discard(t *testing.T, r io.Reader) {
	n, err := io.Copy(io.Discard, r)
	t.Logf("server: read %d bytes, %v", n, err)
}

func write(t *testing.T, w io.Writer, data string) {
	if _, err := io.WriteString(w, data); err != nil {
		t.Errorf("server: %v", err)
	}
}

// The same over real connections, to a server that hangs.
func TestServerHangs(t *testing.T) {
	const stall = 200 * time.Millisecond
	tests := []struct {
		name string
		size int // of the request's body
		hang func(http.ResponseWriter, *http.Request)
	}{
		{"before reading a body", 64 << 20, func(http.ResponseWriter, *http.Request) {}},
		{"before the response", 1000, func(w http.ResponseWriter, r *http.Request) { discard(t, r.Body) }},
		{"in the response", 0, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			write(t, w, strings.Repeat("x", 10))
			w.(http.Flusher).Flush()
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			release := make(chan struct{})
			url, transport := serve(t, func(w http.ResponseWriter, r *http.Request) {
				test.hang(w, r)
				<-release
			})
			t.Cleanup(func() { close(release) })
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(strings.Repeat("x", test.size)))
			if err != nil {
				t.Fatal(err)
			}
			_, err = exchange(t, limits{stall: stall, window: time.Hour}, req, transport.RoundTrip)
			wantStalled(t, err, "200ms")
		})
	}
}

// A server that sends a byte at a time, over a real connection. It does so as
// fast as it can: the rate that is asked for is what is high here. (One that takes
// a byte at a time fills the buffers of the connection, and is a stall.)
func TestServerTrickles(t *testing.T) {
	url, transport := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte("x")); err != nil {
				t.Logf("server: %v", err)
				return
			}
			w.(http.Flusher).Flush()
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	fast := limits{stall: 10 * time.Second, window: 200 * time.Millisecond, rate: 1 << 30}
	_, err = exchange(t, fast, req, transport.RoundTrip)
	if err == nil || !strings.HasPrefix(err.Error(), "request ended because only ") {
		t.Errorf("got %v", err)
	}
}

// The network may notice a deadline before the context does.
func TestEnded(t *testing.T) {
	passed, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx  context.Context
		want error
	}{
		"live":                  {t.Context(), nil},
		"cancelled":             {cancelled, context.Canceled},
		"past":                  {passed, context.DeadlineExceeded},
		"past, and not noticed": {unnoticed{passed}, context.DeadlineExceeded},
	} {
		if got := Ended(test.ctx); !errors.Is(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// unnoticed has a deadline that has passed, and has not noticed.
type unnoticed struct{ context.Context }

func (unnoticed) Err() error { return nil }

// A store's callers send fewer requests at a time when some get too little of the link.
func TestLimitsAreTimeouts(t *testing.T) {
	var timeout interface{ Timeout() bool }
	if err := stalled(defaults); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%v is no time-out", err)
	}
}
