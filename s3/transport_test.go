package s3

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/internal/httpclient"
)

// slowBody yields one byte after each pause. At the end, if hang is set, it blocks
// until the request is ended.
type slowBody struct {
	ctx   context.Context
	left  int
	pause time.Duration
	hang  bool
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		if b.hang {
			<-b.ctx.Done()
			return 0, b.ctx.Err()
		}
		return 0, io.EOF
	}
	select {
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	case <-time.After(b.pause):
	}
	b.left--
	p[0] = 'x'
	return 1, nil
}

func (b *slowBody) Close() error { return nil }

func TestStall(t *testing.T) {
	const size = 5
	get := func(hang bool, pause time.Duration) func(*request) (*http.Response, error) {
		return func(r *request) (*http.Response, error) {
			resp := respond(200, "")
			resp.Header.Set("Content-Length", strconv.Itoa(size))
			sent := size
			if hang {
				sent = 3
			}
			resp.Body = &slowBody{r.Context(), sent, pause, hang}
			return resp, nil
		}
	}
	tests := []struct {
		name    string
		answer  func(*request) (*http.Response, error)
		stalled bool
		took    time.Duration
	}{
		{"no response", func(r *request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, true, StallTimeout},
		{"body stops", get(true, time.Second), true, 3*time.Second + StallTimeout},
		{"body is slow", get(false, StallTimeout-time.Second), false, size * (StallTimeout - time.Second)},
		{"response is slow, and then the body", func(r *request) (*http.Response, error) {
			time.Sleep(StallTimeout - time.Second)
			return get(false, StallTimeout-time.Second)(r)
		}, false, (1 + size) * (StallTimeout - time.Second)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{answer: test.answer}
				s := w.open(t, Options{})
				began := time.Now()
				_, err := s.Get(t.Context(), "key", 0, make([]byte, size))
				if !test.stalled {
					if err != nil {
						t.Error(err)
					}
				} else {
					wantStalled(t, err)
				}
				if took := time.Since(began); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
			})
		})
	}
}

// A body that is sent slowly is not a stall.
func TestSlowUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := doer(func(r *http.Request) (*http.Response, error) {
			for range 3 {
				time.Sleep(StallTimeout - time.Second)
				if _, err := io.ReadFull(r.Body, make([]byte, 1)); err != nil {
					return nil, errors.Join(err, r.Context().Err())
				}
			}
			return respond(200, ""), r.Context().Err()
		})
		if err := call(t.Context(), (&wire{}).openBucket(t, "bucket", testOptions(client), Options{}), "put"); err != nil {
			t.Error(err)
		}
	})
}

// A server that sends one byte now and then cannot keep a call waiting for ever.
func TestTrickle(t *testing.T) {
	for _, verb := range []string{"put", "get", "list", "delete"} {
		t.Run(verb, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{answer: func(r *request) (*http.Response, error) {
					resp := respond(200, "")
					resp.Header.Set("Content-Length", "3600")
					resp.Body = &slowBody{r.Context(), 3600, time.Second, false}
					return resp, nil
				}}
				s := w.open(t, Options{})
				began := time.Now()
				err := call(t.Context(), s, verb)
				if verb == "get" { // the function call reads fewer bytes than are sent
					_, err = s.Get(t.Context(), "key", 0, make([]byte, 3600))
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
	w := &wire{answer: always(func() *http.Response { return respond(200, data) })}
	p := make([]byte, len(data))
	if n, err := w.open(t, Options{}).Get(t.Context(), "key", 0, p); n != len(p) || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// Whatever the result of a request, the goroutine that watches it ends.
func TestWatchEnds(t *testing.T) {
	for name, answer := range map[string]func() (*http.Response, error){
		"answer":    func() (*http.Response, error) { return respond(200, "1234"), nil },
		"error":     func() (*http.Response, error) { return respondError(500, "InternalError"), nil },
		"no answer": func() (*http.Response, error) { return nil, errors.New("connection gone") },
	} {
		t.Run(name, func(t *testing.T) {
			w := &wire{answer: func(*request) (*http.Response, error) { return answer() }}
			s := w.open(t, Options{})
			for i, verb := range verbs {
				err := call(t.Context(), s, verb)
				if w.requests[i].Context().Err() == nil {
					t.Errorf("%s goes on after it returned %v", verb, err)
				}
			}
		})
	}
}

func wantStalled(t *testing.T, err error) {
	t.Helper()
	wantKind(t, err, errAny)
	if err == nil || !strings.Contains(err.Error(), "no byte moved for") {
		t.Errorf("got %v, want a stall", err)
	}
}

// If the caller's context ends while a request stalls, the error is that of the
// context.
func TestStallEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{answer: func(r *request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := call(ctx, w.open(t, Options{}), "put")
		wantKind(t, err, context.DeadlineExceeded)
	})
}

// After many answers 503, Retry succeeds with all calls but Create, which it does not
// repeat.
func TestThrottlingStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storm := 5
		w := &wire{}
		w.answer = func(*request) (*http.Response, error) {
			if storm > 0 {
				storm--
				return respondError(503, "SlowDown"), nil
			}
			return respond(200, ""), nil
		}
		s := backend.Retry(backend.Limit(w.open(t, Options{}), 8), backend.Backoff{})
		if err := call(t.Context(), s, "create"); !errors.Is(err, backend.ErrThrottled) || w.count() != 1 {
			t.Errorf("create: %v after %d requests", err, w.count())
		}
		if err := call(t.Context(), s, "put"); err != nil || w.count() != 1+5 {
			t.Errorf("put: %v after %d requests", err, w.count())
		}
	})
}

// serve opens a store on an HTTP server, over real connections.
func serve(t *testing.T, h http.HandlerFunc) *Store {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"0123456789abcdef"`)
		h(w, r)
	}))
	transport := &http.Transport{}
	httpclient.Tune(transport)
	options := testOptions(direct{transport})
	options.BaseEndpoint = aws.String(server.URL)
	s, err := New(sdk.New(options), "bucket", "jobs", Options{})
	if err != nil {
		t.Fatal(err)
	}
	// This must come before the server's own Close, which waits for its connections.
	t.Cleanup(server.Close)
	t.Cleanup(transport.CloseIdleConnections)
	return s
}

// discard and send are for servers whose client may have gone.
func discard(t *testing.T, r io.Reader) {
	n, err := io.Copy(io.Discard, r)
	t.Logf("server: read %d bytes, %v", n, err)
}

func send(t *testing.T, w io.Writer, data string) {
	if _, err := io.WriteString(w, data); err != nil {
		t.Errorf("server: %v", err)
	}
}

func TestBodyCut(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		send(t, w, strings.Repeat("x", 50))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	n, err := s.Get(t.Context(), "key", 0, make([]byte, 200))
	wantKind(t, err, errAny)
	if err == nil || !strings.Contains(err.Error(), "of 100 bytes") {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// net/http may go on reading a request's body after it has returned. The driver must
// prevent that, because the data belongs to the caller again.
func TestDataNotReadAfterReturn(t *testing.T) {
	answers := map[string]func() (*http.Response, error){
		"early answer": func() (*http.Response, error) { return respondError(412, "PreconditionFailed"), nil },
		"no answer":    func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			var body io.Reader
			client := doer(func(r *http.Request) (*http.Response, error) {
				body = r.Body
				return answer()
			})
			s := (&wire{}).openBucket(t, "bucket", testOptions(client), Options{})
			if _, err := s.Create(t.Context(), "key", []byte("data")); err == nil {
				t.Fatal("no error")
			}
			if rest, err := io.ReadAll(body); len(rest) > 0 {
				t.Errorf("read %q, %v after Create had returned", rest, err)
			}
		})
	}
}

// The same with net/http itself, for the race detector: the service answers while the
// body is being sent, and goes on reading.
func TestDataReusedAfterEarlyAnswer(t *testing.T) {
	const rounds = 5
	received := make(chan int, rounds)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		received <- answerEarly(t, w, r)
	})
	data := make([]byte, 16<<20) // more than fits into the buffers between the two
	for range rounds {
		if _, err := s.Create(t.Context(), "key", data); !errors.Is(err, backend.ErrExist) {
			t.Fatalf("got %v, want ErrExist", err)
		}
		clear(data) // a data race if anything still reads it
		if n := <-received; n == len(data) {
			t.Error("the whole body was sent, so the answer was not early")
		}
	}
}

// answerEarly refuses a PutObject when the beginning of its body has arrived, and
// returns how many bytes arrived in the end.
func answerEarly(t *testing.T, w http.ResponseWriter, r *http.Request) int {
	conn, body, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return 0
	}
	defer conn.Close()
	send(t, conn, "HTTP/1.1 100 Continue\r\n\r\n")
	head := make([]byte, 1000)
	if _, err := io.ReadFull(body, head); err != nil {
		t.Error(err)
	}
	send(t, conn, "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 1\r\n\r\nx")
	n, err := io.CopyN(io.Discard, body, r.ContentLength-int64(len(head)))
	t.Logf("server: read %d bytes more, %v", n, err)
	return len(head) + int(n)
}

func TestConnectionsAreReused(t *testing.T) {
	clients := map[string]bool{}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		clients[r.RemoteAddr] = true
		switch r.Method {
		case http.MethodPut:
			discard(t, r.Body)
		case http.MethodGet:
			if r.URL.Query().Has("list-type") {
				send(t, w, page("", "jobs/a"))
				return
			}
			w.Header().Set("Content-Range", "bytes 0-99/1000")
			w.WriteHeader(http.StatusPartialContent)
			send(t, w, strings.Repeat("x", 100))
		}
	})
	for range 3 {
		for _, verb := range verbs {
			if verb == "get" {
				if _, err := s.Get(t.Context(), "key", 0, make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := call(t.Context(), s, verb); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(clients) != 1 {
		t.Errorf("%d connections for requests one after the other, want 1", len(clients))
	}
}

// A store that is opened by URL keeps as many connections as it has used at once.
// They speak HTTP/1, and a redirect is not followed.
func TestOpenedTransport(t *testing.T) {
	const atOnce = 40
	var (
		mu       sync.Mutex
		clients  = map[string]bool{}
		requests int
		arrived  sync.WaitGroup
	)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		clients[r.RemoteAddr] = true
		requests++
		mu.Unlock()
		discard(t, r.Body)
		if r.ProtoMajor != 1 {
			t.Errorf("request by %s", r.Proto)
		}
		if r.Method == http.MethodGet {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		w.Header().Set("ETag", `"0123"`)
		arrived.Done()
		arrived.Wait()
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	authority := filepath.Join(t.TempDir(), "ca.pem")
	pemBlock := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	if err := os.WriteFile(authority, pem.EncodeToMemory(pemBlock), 0o600); err != nil {
		t.Fatal(err)
	}
	isolate(t, "AWS_CA_BUNDLE="+authority)
	s, err := backend.Open(t.Context(), "s3://bucket?endpoint="+server.URL)
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, s)
	for range 2 {
		arrived.Add(atOnce)
		var group errgroup.Group
		for range atOnce {
			group.Go(func() error { return call(t.Context(), s, "put") })
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, call(t.Context(), s, "get"), backend.ErrNoStore)
	if len(clients) != atOnce || requests != 2*atOnce+1 {
		t.Errorf("%d connections for %d requests, want %d for %d", len(clients), requests, atOnce, 2*atOnce+1)
	}
}

// With a wrong endpoint, real servers and real TLS give an error that is not
// retryable. A server that is down may come back, so that error is.
func TestWrongEndpoint(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	down := httptest.NewServer(nil)
	down.Close()
	tests := []struct {
		name, endpoint string
		kind           error
		advice         string
	}{
		{"https to http", "https" + strings.TrimPrefix(plain.URL, "http"), backend.ErrNoStore, "check whether it is http or https"},
		{"https to another protocol", "https://" + greeter(t), backend.ErrNoStore, "check whether it is http or https"},
		{"unknown authority", secure.URL, backend.ErrNoStore, "set AWS_CA_BUNDLE"},
		{"down", down.URL, errAny, "; is the server running? check the endpoint"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			isolate(t)
			s, err := backend.Open(t.Context(), "s3://bucket?endpoint="+test.endpoint)
			if err != nil {
				t.Fatal(err)
			}
			closeAfter(t, s)
			for _, verb := range verbs {
				err := call(t.Context(), s, verb)
				wantKind(t, err, test.kind)
				if !strings.Contains(err.Error(), test.advice) {
					t.Errorf("%q is missing from %q", test.advice, err)
				}
			}
		})
	}
}

// greeter returns the address of a server that sends the first bytes, as mail servers
// do.
func greeter(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the listener was closed below
			}
			send(t, conn, "220 mail.test ready\r\n")
			discard(t, conn)
			if err := conn.Close(); err != nil {
				t.Errorf("server: %v", err)
			}
		}
	})
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	return listener.Addr().String()
}
