package mqtt

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// writeTimeout is how long the broker may take to read what is written.
	writeTimeout = 10 * time.Second
	// maxUnwritten bounds what waits to be written; the window of the bridge is far below it.
	maxUnwritten = 16 << 20
	// closeTimeout is how long a connection that ends in peace may take to write the rest.
	closeTimeout = time.Second
)

// conn is the connection to a broker as paho sees it. What it reads is checked first, and writing never waits: a goroutine
// writes what has gathered, with a deadline, which is faster too. What paho says about write deadlines does not matter.
type conn struct {
	net.Conn
	check   checker
	pending []byte // of a packet that was checked: not read yet

	wake chan struct{} // has room for one
	done chan struct{} // closed when the writer has ended

	mu      sync.Mutex // guards the fields below
	out     []byte
	closing bool
	err     error // why the connection failed
}

// guard takes over a connection.
func guard(raw net.Conn, publishes bool, tooLarge func()) *conn {
	c := &conn{Conn: raw, wake: make(chan struct{}, 1), done: make(chan struct{})}
	c.check = checker{r: bufio.NewReaderSize(raw, 16<<10), publishes: publishes, tooLarge: func(id uint16) {
		tooLarge()
		if id != 0 {
			_, _ = c.Write(binary.BigEndian.AppendUint16([]byte{typePuback << 4, 2}, id)) // a failure shows at the next packet
		}
	}}
	go c.write()
	return c
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.pending) == 0 {
		packet, err := c.check.next()
		if err != nil {
			return 0, c.fail(err)
		}
		c.pending = packet
	}
	n := copy(p, c.pending)
	c.pending = c.pending[n:]
	return n, nil
}

// Write implements net.Conn. It keeps a copy of p and returns at once.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return 0, c.err
	case c.closing:
		return 0, net.ErrClosed
	case len(c.out)+len(p) > maxUnwritten:
		return 0, errors.New("the broker does not read")
	}
	c.out = append(c.out, p...)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (c *conn) write() {
	defer close(c.done)
	var buf []byte
	for range c.wake {
		c.mu.Lock()
		buf, c.out = c.out, buf[:0]
		closing, failed := c.closing, c.err != nil
		c.mu.Unlock()
		if len(buf) > 0 && !failed {
			limit := writeTimeout
			if closing {
				limit = closeTimeout
			}
			err := c.Conn.SetWriteDeadline(time.Now().Add(limit))
			if err == nil {
				_, err = c.Conn.Write(buf)
			}
			if err != nil {
				_ = c.fail(err) // Read tells
				return
			}
		}
		if closing || failed {
			return
		}
		if cap(buf) > 1<<20 {
			buf = nil
		}
	}
}

// fail cuts the connection, unless that has been done, and returns why. The first reason stays.
func (c *conn) fail(err error) error {
	c.mu.Lock()
	if c.err == nil && !c.closing {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errors.New("the broker does not answer")
		}
		c.err = err
		_ = c.Conn.Close() // it has failed already
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	if c.err != nil {
		err = c.err
	}
	c.mu.Unlock()
	return err
}

// Close implements net.Conn: it writes what waits, but not for long.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closing = true
	failed := c.err != nil
	select {
	case c.wake <- struct{}{}:
	default:
	}
	if !failed {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(closeTimeout)) // also for a write that waits now
	}
	c.mu.Unlock()
	<-c.done
	return c.Conn.Close()
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn. Writing does not wait.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// failed reports why the connection failed, nil if it did not.
func (c *conn) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// cutWith cuts the connection when ctx ends; the function that it returns ends that.
func (c *conn) cutWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = c.fail(context.Cause(ctx)) })
}
