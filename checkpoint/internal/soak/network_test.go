package soak

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A fault is what a network does to one request.
type fault string

const (
	dropped   fault = "connection closed, not applied"
	lost      fault = "applied, connection closed"
	belated   fault = "connection closed, applied seconds later"
	busy      fault = "503, not applied"
	busyLate  fault = "503, applied"
	conflict  fault = "409, not applied"
	conflicts fault = "409, applied"
	cutUp     fault = "request cut"
	cutDown   fault = "reply cut"
	slow      fault = "delayed"

	// What befalls all requests of a process, and not one that is drawn.
	offline fault = "cut off"
)

var drawn = []fault{dropped, lost, belated, busy, busyLate, conflict, conflicts, cutUp, cutDown, slow}

// fits reports whether a fault can befall a request.
func (f fault) fits(r *http.Request, body []byte) bool {
	switch f {
	case conflict, conflicts:
		return r.Header.Get("If-None-Match") != ""
	case cutUp:
		return len(body) > 1
	case cutDown:
		return r.Method == http.MethodGet || r.Method == http.MethodPost
	}
	return true
}

// A lan is what the networks of all processes have in common: the server and
// the count of what passes.
type lan struct {
	target    *url.URL
	transport *http.Transport

	requests, sent, received atomic.Int64 // that reach the server; bytes of bodies

	mu    sync.Mutex
	fired map[fault]int
}

func newLAN(endpoint string) (*lan, error) {
	target, err := url.Parse(endpoint)
	return &lan{
		target: target, fired: make(map[fault]int),
		transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256},
	}, err
}

// draw returns the fault that has fired least of those that fit, so that none is
// left out, and counts it.
func (l *lan) draw(rnd *rand.Rand, r *http.Request, body []byte) fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	var best fault
	for _, i := range rnd.Perm(len(drawn)) {
		if f := drawn[i]; f.fits(r, body) && (best == "" || l.fired[f] < l.fired[best]) {
			best = f
		}
	}
	l.fired[best]++
	return best
}

func (l *lan) count(f fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fired[f]++
}

func (l *lan) faults() map[fault]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.fired)
}

// A network stands between one process and the server. Some requests, by its
// seed, meet a fault.
type network struct {
	*lan
	server *httptest.Server
	every  int            // about one request in so many meets a fault
	down   atomic.Bool    // the process is cut off
	late   sync.WaitGroup // requests that have not been applied yet

	mu   sync.Mutex
	rnd  *rand.Rand
	next int // requests until the next fault
}

// open starts a network. The caller closes it.
func (l *lan) open(seed uint64, every int) *network {
	n := &network{lan: l, every: every, rnd: rand.New(rand.NewPCG(seed, 1))}
	n.server = httptest.NewUnstartedServer(n)
	n.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	n.server.Start()
	return n
}

// close ends the network, when the last late request has been applied.
func (n *network) close() {
	n.server.Close()
	n.late.Wait()
}

// strike draws what befalls a request, and a time within a bound.
func (n *network) strike(r *http.Request, body []byte) (fault, time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next > 0 {
		n.next--
		return "", 0
	}
	n.next = n.rnd.IntN(2*n.every - 1)
	return n.draw(n.rnd, r, body), upTo(n.rnd, longestDelay)
}

// longestDelay is longer than a commit takes, so that others go on meanwhile.
const longestDelay = 2 * time.Second

func (n *network) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n.down.Load() {
		n.count(offline)
		hangUp()
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		hangUp() // the client went away
	}
	f, d := n.strike(r, body)
	switch f {
	case dropped:
		hangUp()
	case cutUp:
		_, _ = n.forward(r.Context(), r, body, len(body)/2)
		hangUp()
	case busy:
		refuse(w, http.StatusServiceUnavailable, "SlowDown")
		return
	case conflict:
		refuse(w, http.StatusConflict, "ConditionalRequestConflict")
		return
	case belated:
		n.applyLate(r, body, d)
		hangUp()
	case slow:
		if !wait(r.Context(), d/4) {
			hangUp()
		}
	}
	reply, err := n.forward(r.Context(), r, body, len(body))
	if err != nil || n.down.Load() {
		hangUp()
	}
	switch f {
	case lost:
		hangUp()
	case busyLate:
		refuse(w, http.StatusServiceUnavailable, "SlowDown")
	case conflicts:
		refuse(w, http.StatusConflict, "ConditionalRequestConflict")
	case cutDown:
		reply.write(w, len(reply.body)/2)
		hangUp()
	default:
		reply.write(w, len(reply.body))
	}
}

// hangUp ends a handler and closes its connection.
func hangUp() { panic(http.ErrAbortHandler) }

// applyLate lets a request arrive when its client has long been told that it
// failed.
func (n *network) applyLate(r *http.Request, body []byte, d time.Duration) {
	ctx := context.WithoutCancel(r.Context())
	n.late.Go(func() {
		wait(ctx, d)
		_, _ = n.forward(ctx, r, body, len(body)) // nobody waits for it
	})
}

// wait waits, and reports whether the context goes on.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

// forward sends a request on, of its body the first bytes. The host stays as the
// client wrote it: it is a part of the signature.
func (n *network) forward(ctx context.Context, r *http.Request, body []byte, first int) (*reply, error) {
	out := r.Clone(ctx)
	out.URL.Scheme, out.URL.Host, out.RequestURI = n.target.Scheme, n.target.Host, ""
	out.Body, out.ContentLength = http.NoBody, int64(len(body))
	if len(body) > 0 {
		out.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:first]), ending{first < len(body)}))
	}
	n.requests.Add(1)
	n.sent.Add(int64(first))
	resp, err := n.transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(resp.Body)
	n.received.Add(int64(len(data)))
	return &reply{resp.StatusCode, resp.Header, data}, errors.Join(err, resp.Body.Close())
}

// ending is the end of a body.
type ending struct{ early bool }

func (e ending) Read([]byte) (int, error) {
	if e.early {
		return 0, errors.New("cut")
	}
	return 0, io.EOF
}

// write writes the reply, of its body the first bytes.
func (r *reply) write(w http.ResponseWriter, first int) {
	maps.Copy(w.Header(), r.header)
	w.Header().Set("Content-Length", strconv.Itoa(len(r.body)))
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body[:first])
	_ = http.NewResponseController(w).Flush() // or a reply that is cut would not be sent at all
}

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, status int, code string) {
	data := []byte("<Error><Code>" + code + "</Code><Message>by the test</Message></Error>")
	h := http.Header{"Content-Type": {"application/xml"}}
	(&reply{status, h, data}).write(w, len(data))
}

// unfired returns the faults that have never fired.
func (l *lan) unfired() []fault {
	fired := l.faults()
	return slices.DeleteFunc(append(slices.Clone(drawn), offline), func(f fault) bool { return fired[f] > 0 })
}

// upTo draws a time below a bound.
func upTo(rnd *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(rnd.Int64N(int64(d)))
}
