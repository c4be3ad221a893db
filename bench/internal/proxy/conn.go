package proxy

import (
	"net"
	"time"
)

// A listener counts the bytes on its connections, and the connections.
type listener struct {
	net.Listener
	proxy *Proxy
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	p := l.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == 0 {
		p.idle = make(chan struct{})
	}
	p.open++
	return &conn{
		Conn: c, proxy: p, connected: time.Now().Add(p.link.RTT),
		up:   way{bucket{rate: p.link.Conn}, &p.up},
		down: way{bucket{rate: p.link.Conn}, &p.down},
	}, nil
}

type conn struct {
	net.Conn
	proxy     *Proxy
	connected time.Time // when a client at the other end of the link could send its first byte
	up, down  way
	closed    bool // under the proxy's lock
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		time.Sleep(time.Until(c.connected)) //nolint:forbidigo // the link's time, which no context ends
		c.up.pass(n)
	}
	c.proxy.count(func(counts *Counts) { counts.Up += int64(n) })
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	c.down.pass(len(b))
	n, err := c.Conn.Write(b)
	c.proxy.count(func(counts *Counts) { counts.Down += int64(n) })
	return n, err
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	p := c.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.closed {
		return err
	}
	c.closed = true
	p.open--
	if p.open == 0 {
		close(p.idle)
	}
	return err
}
