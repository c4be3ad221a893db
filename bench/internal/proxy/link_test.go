package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a network in memory, whose time is that of a synctest bubble.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	ended chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), ended: make(chan struct{})} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.ended) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// onLink calls do with a client of a server behind a proxy with a link, in simulated time.
// The server answers a GET with as many bytes as its query says, in pieces of a size that
// is also there, and takes what is PUT.
func onLink(t *testing.T, link Link, do func(t *testing.T, c *http.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		front, back := newPipes(), newPipes()
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			n, _ := strconv.Atoi(r.FormValue("n"))
			piece, _ := strconv.Atoi(r.FormValue("piece"))
			w.Header().Set("Content-Length", strconv.Itoa(n))
			for ; n > 0; n -= piece {
				_, _ = w.Write(make([]byte, min(piece, n)))
			}
		})}
		var servers sync.WaitGroup
		servers.Go(func() { _ = server.Serve(back) })
		target, err := url.Parse("http://server")
		if err != nil {
			t.Fatal(err)
		}
		p := serve(front, target, link, back.dial)
		transport := &http.Transport{DialContext: front.dial, MaxIdleConnsPerHost: 100, ExpectContinueTimeout: time.Hour}
		do(t, &http.Client{Transport: transport})
		transport.CloseIdleConnections()
		if err := errors.Join(p.Close(), server.Close()); err != nil {
			t.Error(err)
		}
		servers.Wait()
	})
}

// get downloads n bytes, which the server writes in pieces, and returns how long that took.
func get(t *testing.T, c *http.Client, n, piece int) time.Duration {
	t.Helper()
	began := time.Now()
	r, err := c.Get("http://proxy/bucket/a?n=" + strconv.Itoa(n) + "&piece=" + strconv.Itoa(piece))
	if err != nil {
		t.Error(err)
		return 0
	}
	defer r.Body.Close()
	if got, err := io.Copy(io.Discard, r.Body); err != nil || got != int64(n) {
		t.Errorf("%d bytes, %v", got, err)
	}
	return time.Since(began)
}

// put uploads n bytes.
func put(t *testing.T, c *http.Client, n int, expect string) time.Duration {
	t.Helper()
	r, err := http.NewRequest(http.MethodPut, "http://proxy/bucket/a", bytes.NewReader(make([]byte, n)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Expect", expect)
	began := time.Now()
	answer, err := c.Do(r)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return time.Since(began)
}

// near fails unless a time is what is wanted, but for the credit of an idle link, and for
// headers, which take some milliseconds where they have to share a slow link.
func near(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if d := got - want; d < -2*credit || d > 2*credit {
		t.Errorf("%s took %v, want %v", what, got, want)
	}
}

const slow = 6_000_000 // bytes a second, so that a few MB take long

func TestLatency(t *testing.T) {
	onLink(t, Link{RTT: 25 * time.Millisecond}, func(t *testing.T, c *http.Client) {
		for _, step := range []struct {
			what string
			do   func() time.Duration
			want time.Duration
		}{
			{"a GET on a new connection", func() time.Duration { return get(t, c, 10, 10) }, 50 * time.Millisecond},
			{"a GET on an open one", func() time.Duration { return get(t, c, 10, 10) }, 25 * time.Millisecond},
			{"a long GET", func() time.Duration { return get(t, c, 5<<20, 100<<10) }, 25 * time.Millisecond},
			{"a PUT", func() time.Duration { return put(t, c, 5<<20, "") }, 25 * time.Millisecond},
			{"a PUT that asks first", func() time.Duration { return put(t, c, 5<<20, "100-continue") }, 50 * time.Millisecond},
		} {
			if got := step.do(); got != step.want {
				t.Errorf("%s took %v, want %v", step.what, got, step.want)
			}
		}
	})
}

func TestRateOfAConnection(t *testing.T) {
	onLink(t, Link{RTT: 25 * time.Millisecond, Conn: slow}, func(t *testing.T, c *http.Client) {
		get(t, c, 1, 1)
		const second, rtt = time.Second, 25 * time.Millisecond
		for _, piece := range []int{100, 10 << 10, 1 << 20} {
			near(t, "a GET that is written in pieces of "+strconv.Itoa(piece), get(t, c, slow, piece), rtt+second)
		}
		time.Sleep(time.Hour) // an idle link saves up no more than the credit
		near(t, "a GET after a pause", get(t, c, slow, 1<<20), rtt+second)
		near(t, "a PUT", put(t, c, slow, ""), rtt+second)
		for range 100 { // short requests are no way around the rate
			near(t, "a short GET", get(t, c, slow/100, 1<<20), rtt+second/100)
		}
	})
}

func TestConnectionsHaveEachTheirRate(t *testing.T) {
	for _, c := range []struct {
		name string
		link Link
		want time.Duration
	}{
		{"a rate for each", Link{Conn: slow}, time.Second},
		{"one for all", Link{Total: slow}, 4 * time.Second},
		{"both", Link{Conn: slow, Total: 2 * slow}, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			onLink(t, c.link, func(t *testing.T, client *http.Client) {
				for _, do := range []func(){func() { get(t, client, slow, 64<<10) }, func() { put(t, client, slow, "") }} {
					began := time.Now()
					var all sync.WaitGroup
					for range 4 {
						all.Go(do)
					}
					all.Wait()
					near(t, "four at once", time.Since(began), c.want)
				}
				// The two directions do not take from each other.
				began := time.Now()
				var all sync.WaitGroup
				for range 4 {
					all.Go(func() { get(t, client, slow, 64<<10) })
					all.Go(func() { put(t, client, slow, "") })
				}
				all.Wait()
				near(t, "four each way", time.Since(began), c.want)
			})
		})
	}
}

func TestParseLink(t *testing.T) {
	for text, want := range map[string]Link{
		"rtt=25ms,conn=60MB":             {RTT: 25 * time.Millisecond, Conn: 60_000_000},
		"rtt=10ms,total=125MB":           {RTT: 10 * time.Millisecond, Total: 125_000_000},
		"rtt=1s,conn=500KB,total=1000MB": {RTT: time.Second, Conn: 500_000, Total: 1_000_000_000},
		"rtt=1ms,conn=1GB":               {RTT: time.Millisecond, Conn: 1_000_000_000},
	} {
		got, err := ParseLink(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if again, err := ParseLink(got.String()); err != nil || again != want {
			t.Errorf("%s is printed as %s: %v", text, got, err)
		}
	}
	for _, text := range []string{"", "rtt", "rtt=25", "conn=60", "conn=MB", "conn=-1MB", "rtt=-1s", "speed=1MB", "rtt=25ms, conn=1MB"} {
		if l, err := ParseLink(text); err == nil {
			t.Errorf("%q: %+v", text, l)
		}
	}
}
