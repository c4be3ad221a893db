package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/bench/internal/proxy"
)

// A linkCheck is what a plain HTTP client finds behind a link, with a server that does
// nothing. It tells whether this machine can carry the link that it is to be a model of.
type linkCheck struct {
	Link      string  `json:"link"`
	FirstByte float64 `json:"first_byte"` // seconds until an answer begins, on an open connection
	Down      float64 `json:"down"`       // bytes a second on one connection
	Up        float64 `json:"up"`         // likewise
	FourDown  float64 `json:"four_down"`  // on four connections together
	FourUp    float64 `json:"four_up"`
}

func (c *linkCheck) String() string {
	return fmt.Sprintf("link %s: an answer begins after %.1f ms; one connection carries %.0f MB/s down and %.0f up, four carry %.0f and %.0f",
		c.Link, 1e3*c.FirstByte, c.Down/1e6, c.Up/1e6, c.FourDown/1e6, c.FourUp/1e6)
}

// checkBytes is what one connection carries in a check.
const checkBytes = 32 << 20

// checkLink measures a link. It fails if that is faster than it says: then the model is wrong.
func checkLink(ctx context.Context, link proxy.Link) (_ *linkCheck, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(idle)}
	var serving errgroup.Group
	serving.Go(func() error { return server.Serve(l) })
	defer func() {
		_ = server.Close()
		if ended := serving.Wait(); !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
	}()
	p, err := proxy.Start("http://"+l.Addr().String(), link) //nolint:contextcheck // each request has its own
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	transport := &http.Transport{MaxIdleConnsPerHost: 4, WriteBufferSize: 256 << 10}
	defer transport.CloseIdleConnections()
	client := linkClient{&http.Client{Transport: transport}, p.Endpoint + "/check/"}
	c := &linkCheck{Link: link.String()}
	if err := client.measure(ctx, c); err != nil {
		return nil, fmt.Errorf("link %s: %w", link, err)
	}
	const tolerance = 1.05
	switch {
	case c.FirstByte < link.RTT.Seconds(),
		link.Conn > 0 && max(c.Down, c.Up, c.FourDown/4, c.FourUp/4) > tolerance*float64(link.Conn),
		link.Total > 0 && max(c.Down, c.Up, c.FourDown, c.FourUp) > tolerance*float64(link.Total):
		return nil, fmt.Errorf("the model is faster than it says: %v", c)
	}
	return c, nil
}

// idle is a server that takes what it is sent, and sends as many bytes as it is asked for.
func idle(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	n, _ := strconv.Atoi(r.URL.RawQuery)
	w.Header().Set("Content-Length", strconv.Itoa(n))
	_, _ = w.Write(make([]byte, n))
}

type linkClient struct {
	*http.Client
	url string
}

func (c linkClient) measure(ctx context.Context, into *linkCheck) error {
	if _, err := c.time(ctx, 4, 1, 1); err != nil { // opens the connections
		return err
	}
	const short = 20
	took := time.Duration(0)
	for range short {
		t, err := c.time(ctx, 1, 1, 0)
		if err != nil {
			return err
		}
		took += t
	}
	into.FirstByte = took.Seconds() / short
	for _, m := range []struct {
		to           *float64
		conns        int
		down, upward int64
	}{
		{&into.Down, 1, checkBytes, 0},
		{&into.Up, 1, 0, checkBytes},
		{&into.FourDown, 4, checkBytes, 0},
		{&into.FourUp, 4, 0, checkBytes},
	} {
		t, err := c.time(ctx, m.conns, m.down, m.upward)
		if err != nil {
			return err
		}
		*m.to = float64(int64(m.conns)*checkBytes) / t.Seconds()
	}
	return nil
}

// time returns how long n requests take side by side, each of which moves some bytes.
func (c linkClient) time(ctx context.Context, n int, down, up int64) (time.Duration, error) {
	group, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for range n {
		group.Go(func() error {
			r, err := http.NewRequestWithContext(ctx, http.MethodPut, c.url+"?"+strconv.FormatInt(down, 10), bytes.NewReader(make([]byte, up)))
			if err != nil {
				return err
			}
			answer, err := c.Do(r)
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			_, err = io.Copy(io.Discard, answer.Body)
			return err
		})
	}
	err := group.Wait()
	return time.Since(began), err
}
