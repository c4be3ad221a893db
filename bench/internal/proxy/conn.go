package proxy

import "net"

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
	return &conn{Conn: c, proxy: p}, nil
}

type conn struct {
	net.Conn
	proxy  *Proxy
	closed bool // under the proxy's lock
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.proxy.count(func(counts *Counts) { counts.Up += int64(n) })
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
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
