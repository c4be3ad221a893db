package proxy

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Link is a model of the network between clients and the server. Its zero value is the
// loopback interface as it is.
//
// A new connection waits one round trip before its first byte arrives. An answer begins one
// round trip after the server has given it, so the server's own time comes on top; so does a
// "100 Continue" that a client waits for. Bytes move at a rate, in each direction by itself.
// Lost packets, and connections that begin slowly, are not in the model.
type Link struct {
	RTT   time.Duration // a round trip
	Conn  int64         // bytes a second on each connection; 0 is as fast as it goes
	Total int64         // bytes a second on all connections together; likewise
}

// credit is how much time a connection that had nothing to send may make up for. It lets a
// sleep that lasted too long not lower the rate.
const credit = 5 * time.Millisecond

// ParseLink reads a link as in "rtt=25ms,conn=60MB" or "rtt=10ms,total=125MB".
func ParseLink(s string) (Link, error) {
	var l Link
	for part := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(part, "=")
		var err error
		switch name {
		case "rtt":
			l.RTT, err = time.ParseDuration(value)
		case "conn":
			l.Conn, err = parseRate(value)
		case "total":
			l.Total, err = parseRate(value)
		default:
			err = fmt.Errorf("%q is none of rtt, conn and total", name)
		}
		if err == nil && (l.RTT < 0 || l.Conn < 0 || l.Total < 0) {
			err = fmt.Errorf("%s is negative", name)
		}
		if err != nil {
			return Link{}, fmt.Errorf("link %q: %w; it looks like rtt=25ms,conn=60MB or rtt=10ms,total=125MB", s, err)
		}
	}
	return l, nil
}

// parseRate reads bytes a second, as in "60MB".
func parseRate(s string) (int64, error) {
	for _, u := range []struct {
		name string
		size int64
	}{{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}} {
		if number, ok := strings.CutSuffix(s, u.name); ok {
			n, err := strconv.ParseInt(number, 10, 32)
			return n * u.size, err
		}
	}
	return 0, fmt.Errorf("a rate ends in KB, MB or GB, for each second: %q", s)
}

func (l Link) String() string {
	text := "rtt=" + l.RTT.String()
	if l.Conn > 0 {
		text += ",conn=" + formatRate(l.Conn)
	}
	if l.Total > 0 {
		text += ",total=" + formatRate(l.Total)
	}
	return text
}

func formatRate(n int64) string {
	if n%1e6 == 0 {
		return fmt.Sprintf("%dMB", n/1e6)
	}
	return fmt.Sprintf("%dKB", n/1e3)
}

// A bucket lets bytes pass at a rate, whatever the size of single reads and writes.
type bucket struct {
	rate int64 // in bytes a second; 0 is no limit

	mu   sync.Mutex
	free time.Time // when all bytes so far will have passed
}

// reserve returns how long it takes until n more bytes have passed.
func (b *bucket) reserve(n int) time.Duration {
	if b.rate == 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if late := now.Add(-credit); b.free.Before(late) {
		b.free = late
	}
	b.free = b.free.Add(time.Duration(float64(n) / float64(b.rate) * float64(time.Second)))
	return b.free.Sub(now)
}

// A way is one direction of a connection.
type way struct {
	own    bucket
	shared *bucket // of all connections
}

// pass waits until n bytes have passed the link.
func (w *way) pass(n int) {
	time.Sleep(max(w.own.reserve(n), w.shared.reserve(n))) //nolint:forbidigo // the link's time, which no context ends
}

// travel waits for a round trip, or until ctx ends.
func (l Link) travel(ctx context.Context) {
	if l.RTT == 0 {
		return
	}
	t := time.NewTimer(l.RTT)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
