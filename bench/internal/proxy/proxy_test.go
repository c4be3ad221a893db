package proxy

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const answer = "<answer/>"

// start starts a proxy before a server that answers every request, once it has
// read it.
func start(t *testing.T) *Proxy {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		if r.Host != "signed.example" || r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("the proxy changed the request: host %s, header %v", r.Host, r.Header)
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	p, err := Start(server.URL, Link{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// exchange sends text on a connection of its own and returns all that comes
// back.
func exchange(t *testing.T, p *Proxy, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(p.Endpoint, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	back, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(back)
}

func TestCounts(t *testing.T) {
	p := start(t)
	for _, c := range []struct {
		request string
		body    int
		want    Kind
	}{
		{"GET /bucket?list-type=2&prefix=a", 0, List},
		{"GET /bucket/?prefix=a&delimiter=%2F", 0, List},
		{"GET /bucket", 0, List},
		{"GET /bucket?uploads", 0, List},
		{"GET /bucket?versions", 0, List},
		{"GET /bucket/?location=", 0, Other},
		{"GET /bucket/?object-lock=", 0, Other},
		{"GET /", 0, Other},
		{"PUT /bucket", 0, Other},
		{"HEAD /bucket", 0, Head},
		{"HEAD /bucket/a/b", 0, Head},
		{"GET /bucket/a/b", 0, Get},
		{"GET /bucket/list-type=2", 0, Get},
		{"GET /bucket/a?versionId=1", 0, Get},
		{"GET /bucket/a?acl", 0, Other},
		{"PUT /bucket/a", 0, Put},
		{"PUT /bucket/a?x-id=PutObject", 1 << 20, Put},
		{"DELETE /bucket/a", 0, Delete},
		{"POST /bucket?delete", 300, Delete},
		{"POST /bucket/a?uploads", 0, Multipart},
		{"PUT /bucket/a?partNumber=1&uploadId=x", 5000, Multipart},
		{"POST /bucket/a?uploadId=x", 20, Multipart},
		{"DELETE /bucket/a?uploadId=x", 0, Multipart},
		{"GET /bucket/a?uploadId=x", 0, Multipart},
	} {
		t.Run(c.request, func(t *testing.T) {
			sent := fmt.Sprintf("%s HTTP/1.1\r\nHost: signed.example\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
				c.request, c.body, strings.Repeat("x", c.body))
			back := exchange(t, p, sent)
			method, _, _ := strings.Cut(c.request, " ")
			if method != http.MethodHead && !strings.HasSuffix(back, answer) {
				t.Fatalf("got %q, want the server's answer", back)
			}
			got, err := p.Take(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(got.Kinds, map[Kind]int{c.want: 1}) || !maps.Equal(got.Methods, map[string]int{method: 1}) || got.Requests() != 1 {
				t.Errorf("got %v, %v, want one %s, a %s", got.Kinds, got.Methods, method, c.want)
			}
			if got.Up != int64(len(sent)) || got.Down != int64(len(back)) || got.Lost != 0 {
				t.Errorf("got %d bytes up and %d down, %d lost, want %d, %d and none", got.Up, got.Down, got.Lost, len(sent), len(back))
			}
		})
	}
}

func TestTakeWaits(t *testing.T) {
	p := start(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(p.Endpoint, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	const request = "GET /bucket/a HTTP/1.1\r\nHost: signed.example\r\n\r\n"
	if _, err := io.WriteString(c, request+request); err != nil {
		t.Fatal(err)
	}
	back := make([]byte, 1)
	if _, err := io.ReadFull(c, back); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := p.Take(ctx); err == nil {
		t.Errorf("got %+v while a client is connected", got)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Take(t.Context()); err != nil {
		t.Error(err)
	}
	got, err := p.Take(t.Context())
	if err != nil || got.Requests() != 0 || got.Up != 0 || got.Down != 0 {
		t.Errorf("got %+v, %v after the counts were taken", got, err)
	}
}

func TestLost(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p, err := Start(nobody, Link{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	back := exchange(t, p, "GET /bucket/a HTTP/1.1\r\nHost: signed.example\r\nConnection: close\r\n\r\n")
	got, err := p.Take(t.Context())
	if err != nil || got.Lost != 1 || !strings.Contains(back, "502") {
		t.Errorf("got %+v, %v and %q, want one request lost", got, err, back)
	}
}
