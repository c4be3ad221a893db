package gcs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
)

// pipe is a transport that reads n bytes of a request's body, calls cut, and then
// goes on reading, like a transport that has not noticed the cancellation yet.
type pipe struct {
	n   int64
	cut func()

	got   bytes.Buffer
	ended error // the error that ended the body; nil if it was complete
}

func (p *pipe) RoundTrip(r *http.Request) (*http.Response, error) {
	_, p.ended = io.CopyN(&p.got, r.Body, p.n)
	if p.ended == nil {
		p.cut()
		_, p.ended = io.Copy(&p.got, r.Body)
	}
	if err := r.Body.Close(); err != nil {
		return nil, err
	}
	if r.Context().Err() != nil {
		return nil, r.Context().Err()
	}
	return nil, errors.New("not cancelled")
}

// The body of a cancelled upload never looks complete to the transport, however far
// it reads on. Without the check in package httpclient, it would read the boundary
// that ends a complete body.
func TestCancelledUploadNeverLooksWhole(t *testing.T) {
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		p := &pipe{n: 100_000, cut: cancel}
		s, err := New(t.Context(), &http.Client{Transport: p}, "bucket", "", Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Create(ctx, "key", make([]byte, 1<<20))
		wantKind(t, err, context.Canceled)
		if p.ended == nil {
			t.Fatalf("the body of a cancelled upload ended well, after %d bytes", p.got.Len())
		}
		if bytes.Contains(p.got.Bytes(), closing(t, p.got.Bytes())) {
			t.Fatal("a truncated body ends like a whole one")
		}
	}
}

// closing returns the line that ends a complete multipart body. data is the beginning
// of the body.
func closing(t *testing.T, data []byte) []byte {
	t.Helper()
	line, _, ok := bytes.Cut(data, []byte("\r\n"))
	if !ok || !bytes.HasPrefix(line, []byte("--")) {
		t.Fatalf("the body begins with %q", line)
	}
	return slices.Concat(line, []byte("--"))
}

// If the writer of a body gives up before there is an answer, the body ends with an
// error.
func TestUploadGivenUpNeverLooksWhole(t *testing.T) {
	body, _ := io.Pipe()
	if err := body.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := sendBody(t, body); got != "" || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("sent %q, %v, want an error", got, err)
	}
}

// sendBody sends a request through the driver's transport, and returns what the
// transport below it could read.
func sendBody(t *testing.T, body io.ReadCloser) (string, error) {
	t.Helper()
	var got []byte
	read := roundTripper(func(r *http.Request) (_ *http.Response, err error) {
		if got, err = io.ReadAll(r.Body); err == nil {
			err = errors.New("the body looks whole")
		}
		return nil, err
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://store.test", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := guard(&http.Client{Transport: read}).Transport.RoundTrip(req)
	if resp != nil {
		t.Errorf("got %v", resp)
	}
	return string(got), err
}

// The same over a real connection: the server sees that the body is not complete.
func TestCancelledUploadOverHTTP(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.CopyN(io.Discard, r.Body, 64<<10)
		if err == nil {
			cancel()
			_, err = io.Copy(io.Discard, r.Body)
		}
		ended <- err
	}))
	defer server.Close()
	transport := newTransport()
	defer transport.CloseIdleConnections()
	s, err := New(t.Context(), &http.Client{Transport: transport}, "bucket", "", Options{Endpoint: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Create(ctx, "key", make([]byte, 64<<20)) // more than fits into the buffers between the two ends
	wantKind(t, err, context.Canceled)
	if err := <-ended; err == nil {
		t.Error("the body of a cancelled upload ended well")
	}
}

// Parallel requests have a connection each, also with a service that offers HTTP/2.
// Later requests reuse the connections.
func TestConnections(t *testing.T) {
	const parallel = 8
	var arrived atomic.Int64
	together := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("spoke %s", r.Proto) // with HTTP/2, it may make as many connections at the start
		}
		if arrived.Add(1) == parallel {
			close(together)
		}
		select {
		case <-together:
		case <-r.Context().Done():
		}
		http.Error(w, "No such object: bucket/key", http.StatusNotFound)
	}))
	var connections atomic.Int64
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	transport := newTransport()
	defer transport.CloseIdleConnections()
	transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	s, err := New(t.Context(), &http.Client{Transport: transport}, "bucket", "", Options{Endpoint: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var group errgroup.Group
		for range parallel {
			group.Go(func() error { return verbs["get"](t.Context(), s) })
		}
		wantKind(t, group.Wait(), backend.ErrNotExist)
	}
	if n := connections.Load(); n != parallel {
		t.Errorf("%d connections, want %d", n, parallel)
	}
}

// A download cannot send a second request, whatever the reason.
func TestOnlyOneRequest(t *testing.T) {
	w := &wire{answer: always(func() *http.Response { return respondPart(0, 3, 4, "data") })}
	client := guard(&http.Client{Transport: w})
	req, err := http.NewRequestWithContext(only(t.Context()), http.MethodGet, "http://store.test?alt=media", nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		resp, err := client.Do(req)
		if (err == nil) != (n == 0) {
			t.Errorf("request %d: %v, %v", n, resp, err)
		}
		if resp != nil {
			shut(t, resp.Body)
		}
	}
	if w.count() != 1 {
		t.Errorf("%d requests, want 1", w.count())
	}
}

// Each chunk of an upload, of 32 KiB, is one write to the connection.
func TestUploadWritesWholeChunks(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		http.Error(w, "enough", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	transport := newTransport()
	defer transport.CloseIdleConnections()
	var writes atomic.Int64
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &countedConn{conn, &writes}, err
	}
	s, err := New(t.Context(), &http.Client{Transport: transport}, "bucket", "", Options{Endpoint: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	const chunks = 64
	_, err = s.Put(t.Context(), "key", make([]byte, chunks*32<<10))
	wantKind(t, err, backend.ErrThrottled)
	if n := writes.Load(); n < chunks || n > chunks+20 { // a few more for the headers of the request and of its parts
		t.Errorf("%d writes for %d chunks", n, chunks)
	}
}

type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func TestStalls(t *testing.T) {
	const limit = 30 * time.Second
	for name, answer := range map[string]func(*request) (*http.Response, error){
		"no response": func(r *request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
		"stalled body": func(r *request) (*http.Response, error) {
			resp := respondPart(0, 0, 1, "")
			resp.ContentLength = 1
			resp.Body = io.NopCloser(&blocked{ctx: r.Context()})
			return resp, nil
		},
	} {
		for verb, call := range verbs {
			t.Run(name+"/"+verb, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					if name == "stalled body" && verb == "delete" {
						return // reads no body
					}
					w := &wire{answer: answer}
					began := time.Now()
					err := call(t.Context(), w.open(t, Options{}))
					wantKind(t, err, errAny)
					if err == nil || !strings.Contains(err.Error(), "no byte moved for 30s") {
						t.Errorf("got %v", err)
					}
					if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
						t.Errorf("%v passes for the caller's context", err)
					}
					if took := time.Since(began); took != limit || limit != StallTimeout {
						t.Errorf("took %v, want %v", took, limit)
					}
					if w.count() != 1 {
						t.Errorf("%d requests, want 1", w.count())
					}
				})
			})
		}
	}
}

// blocked returns no byte until its request ends.
type blocked struct{ ctx context.Context }

func (b *blocked) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

// A slow transfer is not a stall.
func TestSlowIsNotStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: func(req *request) (*http.Response, error) {
			r := respondPart(0, 9, 10, "")
			r.ContentLength = 10
			time.Sleep(20 * time.Second) // the header of the answer counts as moving bytes, too
			r.Body = io.NopCloser(&slow{req.Context(), "abcdefghij", 20 * time.Second})
			return r, nil
		}}
		p := make([]byte, 10)
		began := time.Now()
		n, err := w.open(t, Options{}).Get(t.Context(), "key", 0, p)
		if err != nil || string(p[:n]) != "abcdefghij" || time.Since(began) != 220*time.Second {
			t.Errorf("got %q, %v in %v", p[:n], err, time.Since(began))
		}
	})
}

// slow returns one byte after each pause, until its request ends.
type slow struct {
	ctx   context.Context
	rest  string
	pause time.Duration
}

func (s *slow) Read(p []byte) (int, error) {
	if s.rest == "" {
		return 0, io.EOF
	}
	select {
	case <-time.After(s.pause):
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
	p[0], s.rest = s.rest[0], s.rest[1:]
	return 1, nil
}

// A server that sends one byte now and then cannot keep a call waiting for ever.
func TestTrickle(t *testing.T) {
	for verb, call := range verbs {
		if verb == "delete" {
			continue // does not read the answer
		}
		t.Run(verb, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{answer: func(r *request) (*http.Response, error) {
					resp := respondPart(0, 3599, 3600, "")
					resp.ContentLength = 3600
					resp.Body = io.NopCloser(&slow{r.Context(), strings.Repeat("x", 3600), time.Second})
					return resp, nil
				}}
				s := w.open(t, Options{})
				began := time.Now()
				var err error
				if verb == "get" { // the function verbs["get"] reads fewer bytes than are sent
					_, err = s.Get(t.Context(), "key", 0, make([]byte, 3600))
				} else {
					err = call(t.Context(), s)
				}
				wantKind(t, err, errAny)
				if err == nil || !strings.Contains(err.Error(), "bytes moved in 5m0s") {
					t.Errorf("got %v, want the end of a trickle", err)
				}
				if took := time.Since(began); took > 6*time.Minute {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// A large answer is read completely.
func TestLargeGet(t *testing.T) {
	data := strings.Repeat("x", 32<<20)
	w := &wire{answer: always(func() *http.Response { return respondPart(0, len(data)-1, len(data), data) })}
	p := make([]byte, len(data))
	if n, err := w.open(t, Options{}).Get(t.Context(), "key", 0, p); n != len(p) || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// A slow upload is not a stall: each piece that is read counts as moving bytes.
func TestSlowUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		send := roundTripper(func(r *http.Request) (*http.Response, error) {
			p := make([]byte, 256<<10)
			for {
				_, err := io.ReadFull(r.Body, p)
				if err != nil {
					return respondError(503, "backendError", "now you know"), r.Body.Close()
				}
				select {
				case <-time.After(20 * time.Second):
				case <-r.Context().Done():
					return nil, r.Context().Err()
				}
			}
		})
		s, err := New(t.Context(), &http.Client{Transport: send}, "bucket", "", Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Put(t.Context(), "key", make([]byte, 1<<20))
		wantKind(t, err, backend.ErrThrottled)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The service may answer before it has read the whole body. Its answer counts.
func TestEarlyAnswer(t *testing.T) {
	for _, size := range []int{1 << 10, 4 << 20} {
		answer := roundTripper(func(r *http.Request) (*http.Response, error) {
			if _, err := io.CopyN(io.Discard, r.Body, 512); err != nil {
				return nil, err
			}
			return notMet(), r.Body.Close()
		})
		s, err := New(t.Context(), &http.Client{Transport: answer}, "bucket", "", Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Create(t.Context(), "key", make([]byte, size))
		wantKind(t, err, backend.ErrExist)
	}
}

// The emulator answers when it has read the last boundary, before the end of the
// request's body. If the rest of the body then fails, HTTP/2 drops the answer; the
// SDK makes it fail.
func TestAnswerAtTheLastBoundary(t *testing.T) {
	early := roundTripper(func(r *http.Request) (*http.Response, error) {
		var body bytes.Buffer
		p := make([]byte, 1)
		for !bytes.HasSuffix(body.Bytes(), []byte("--\r\n")) {
			if _, err := r.Body.Read(p); err != nil {
				return nil, err
			}
			body.Write(p)
		}
		resp, err := (&request{Request: r, body: body.Bytes()}).stored()
		if err != nil {
			return nil, err
		}
		resp.Body = &untilSent{resp.Body, r.Body}
		return resp, nil
	})
	s, err := New(t.Context(), &http.Client{Transport: early}, "bucket", "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), "key", []byte("data")); err != nil {
		t.Error(err)
	}
}

// untilSent is the body of an answer. It fails if the rest of the request's body
// does.
type untilSent struct {
	io.ReadCloser
	request io.Reader
}

func (b *untilSent) Read(p []byte) (int, error) {
	if _, err := io.Copy(io.Discard, b.request); err != nil {
		return 0, err
	}
	return b.ReadCloser.Read(p)
}
