package door

import (
	"bytes"
	"container/list"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// maxHead is the most that is kept of the head of a request. A longer one is left to net/http, which answers 431.
	maxHead = 6 << 10
	// headSlop is what net/http adds to MaxHeaderBytes.
	headSlop = 4 << 10
	// maxLines is the most lines that a head may have.
	maxLines = 64
	// maxHandshake is the most that a client may send before the TLS handshake is done.
	maxHandshake = 16 << 10
)

// conn is a connection as net/http sees it: in plain text.
type conn struct {
	net.Conn // TLS or TCP
	l        *Listener
	tcp      net.Conn
	below    *underTLS // nil without TLS
	source   netip.Addr

	// The fields of the reader, which net/http has only one of at a time.
	holding bool   // the head is kept until it is complete
	held    []byte // what was read and not handed on

	known atomic.Bool  // not a stranger any more
	wrote atomic.Int64 // time of the last write since Listener.epoch, for strangers that are served

	// noted is nil until the first request that admitted the connection is answered: it would cost strangers memory. It changes
	// only when nobody reads or writes.
	noted *deadlines

	// Guarded by Listener.mu.
	place   *list.Element // nil: not a stranger
	timer   *time.Timer
	serving bool
}

// connOf returns the conn in what Accept returned.
func connOf(c net.Conn) *conn {
	if t, ok := c.(*tlsConn); ok {
		return t.conn
	}
	return c.(*conn)
}

// expire ends the connection if it is still a stranger and makes no progress.
func (c *conn) expire() {
	l := c.l
	l.mu.Lock()
	if c.place == nil {
		l.mu.Unlock()
		return
	}
	if c.serving {
		if left := l.Timeout - (l.now() - time.Duration(c.wrote.Load())); left > 0 {
			c.timer.Reset(left)
			l.mu.Unlock()
			return
		}
	}
	l.Metrics.TimedOut.Add(1) // before it is gone from the strangers, so that whoever sees that sees why
	l.removeLocked(c)
	l.mu.Unlock()
	_ = c.tcp.Close() // an error would say that it is closed
}

// entered follows the connection through the states of net/http: new, active (the head is complete), idle (answered).
func (c *conn) entered(s http.ConnState) {
	switch s {
	case http.StateHijacked, http.StateClosed:
		c.l.remove(c)
	case http.StateActive, http.StateIdle:
		if c.known.Load() {
			if s == http.StateIdle && c.noted == nil && c.below == nil {
				_ = c.Conn.SetDeadline(time.Time{}) // it fails on a connection that is closed
				c.noted = new(deadlines)
			}
			return
		}
		c.wrote.Store(int64(c.l.now()))
		c.l.mu.Lock()
		stranger := c.place != nil
		if stranger {
			c.serving = s == http.StateActive
			c.timer.Reset(c.l.Timeout)
		}
		c.l.mu.Unlock()
		// What net/http has read of the next request already does not pass here again. It is at most a byte, unless a client
		// that nobody knows sends a request with a body and the next one at once.
		c.holding = stranger && s == http.StateIdle
	}
}

// Read returns plain text. Of a stranger it returns nothing before the head of the request is complete.
func (c *conn) Read(p []byte) (int, error) {
	if c.holding {
		if err := c.hold(); err != nil {
			return 0, err
		}
	}
	if len(c.held) > 0 {
		n := copy(p, c.held)
		if c.held = c.held[n:]; len(c.held) == 0 {
			c.held = nil
		}
		return n, nil
	}
	return c.read(p)
}

func (c *conn) read(p []byte) (int, error) {
	if c.noted == nil {
		return c.Conn.Read(p)
	}
	for {
		if err := c.noted.read.begin(c.Conn.SetReadDeadline); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(p)
		if again := c.noted.read.end(err); n > 0 || !again {
			return n, err
		}
	}
}

var (
	errLines = errors.New("too many lines in the head of a request")
	tooMany  = []byte("HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n" +
		"Content-Length: 37\r\nConnection: close\r\n\r\nThe request has too many header fields")
)

// hold reads until the head is complete or too long.
func (c *conn) hold() error {
	var h headEnd
	for scanned := 0; ; {
		done := h.scan(c.held[scanned:])
		scanned = len(c.held)
		switch {
		case h.lines > maxLines:
			_, _ = c.Write(tooMany) // if it does not get there, the end of the connection says enough
			return errLines
		case done, scanned >= maxHead:
			c.holding = false
			return nil
		}
		if err := c.readMore(); err != nil {
			return err
		}
	}
}

// headEnd finds the empty line behind the head of a request.
type headEnd struct {
	lines int
	blank bool // nothing since the last line feed
}

// scan looks at the next bytes and reports whether the head ends in them.
func (h *headEnd) scan(p []byte) bool {
	for _, b := range p {
		switch b {
		case '\n':
			if h.blank {
				return true
			}
			h.lines, h.blank = h.lines+1, true
		case '\r':
		default:
			h.blank = false
		}
	}
	return false
}

// readMore reads once into held, which grows to no more than maxHead.
func (c *conn) readMore() error {
	if len(c.held) == cap(c.held) {
		grown := make([]byte, len(c.held), min(max(512, 4*cap(c.held)), maxHead))
		copy(grown, c.held)
		c.held = grown
	}
	n, err := c.Conn.Read(c.held[len(c.held):cap(c.held)])
	c.held = c.held[:len(c.held)+n]
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// Write notes that a stranger's answer makes progress.
func (c *conn) Write(p []byte) (n int, err error) {
	if c.noted == nil {
		if n, err = c.Conn.Write(p); n > 0 {
			c.wrote.Store(int64(c.l.now()))
		}
		return n, err
	}
	for again := true; again; {
		if err := c.noted.write.begin(c.Conn.SetWriteDeadline); err != nil {
			return n, err
		}
		var now int
		now, err = c.Conn.Write(p[n:])
		n += now
		again = c.noted.write.end(err)
	}
	return n, err
}

// SetReadDeadline holds for reads that wait already, too.
func (c *conn) SetReadDeadline(t time.Time) error {
	if c.noted == nil {
		return c.Conn.SetReadDeadline(t)
	}
	return c.noted.read.set(t, c.Conn.SetReadDeadline)
}

// SetWriteDeadline holds for writes that wait already, too.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if c.noted == nil {
		return c.Conn.SetWriteDeadline(t)
	}
	return c.noted.write.set(t, c.Conn.SetWriteDeadline)
}

// SetDeadline is both.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// CloseWrite closes the writing side, as net/http does when it does not want the rest of a request.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Release ends the part of the door after the connection was hijacked: it returns the connection below, and what was
// read from it and not handed on. The connection is no stranger any more, so Admit must have been in order.
func (c *conn) Release() (net.Conn, []byte) {
	c.l.remove(c)
	if c.noted != nil {
		c.noted.read.settle(c.Conn.SetReadDeadline)
		c.noted.write.settle(c.Conn.SetWriteDeadline)
	}
	held := c.held
	c.held = nil
	return c.Conn, held
}

// tlsConn is a conn under TLS. net/http asks for its state before anything else, and puts it into Request.TLS.
type tlsConn struct {
	*conn
	tls *tls.Conn
}

// ConnectionState does the handshake, which the stranger's time bounds. If it fails, so does the next Read.
func (t *tlsConn) ConnectionState() tls.ConnectionState {
	// The handshake needs a large stack, and the one we are on stays with the connection.
	result := make(chan error)
	go func() { result <- t.tls.Handshake() }()
	err := <-result
	t.below.done.Store(true)
	if err != nil {
		t.l.Metrics.Handshake.Add(1)
		t.answerPlain(err)
		t.l.Logger.Debug("TLS handshake failed", "remote", t.RemoteAddr(), "err", err)
	}
	return t.tls.ConnectionState()
}

// answerPlain tells a client that speaks HTTP without TLS what is wrong.
func (t *tlsConn) answerPlain(err error) {
	var head tls.RecordHeaderError
	if errors.As(err, &head) && head.Conn != nil && bytes.ContainsAny(head.RecordHeader[:1], "GPHDO") {
		_, _ = io.WriteString(head.Conn, "HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\nThis port speaks TLS: use https.\n")
	}
}

// underTLS bounds what a client can make the handshake remember.
type underTLS struct {
	net.Conn
	left int
	done atomic.Bool // the handshake is over
}

var errHandshake = errors.New("the TLS handshake is too long")

func (u *underTLS) Read(p []byte) (int, error) {
	if u.done.Load() {
		return u.Conn.Read(p)
	}
	if u.left <= 0 {
		return 0, errHandshake
	}
	n, err := u.Conn.Read(p[:min(len(p), u.left)])
	u.left -= n
	return n, err
}

// CloseWrite closes the writing side of TCP.
func (u *underTLS) CloseWrite() error {
	if half, ok := u.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
