package frames

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/lxzan/gws"

	"telemetryhub/hub/crew"
)

// Close codes of RFC 6455 section 7.4.1, and one of the hub's own.
const (
	CloseNormal   = 1000
	CloseProtocol = 1002 // the framing is broken
	CloseEmpty    = 1005 // a close frame without a code; never on the wire
	CloseLost     = 1006 // no close frame at all; never on the wire
	CloseUTF8     = 1007 // text that is not UTF-8
	ClosePolicy   = 1008
	CloseTooBig   = 1009
	CloseInternal = 1011 // our fault
	CloseTooFast  = 4029
)

// Owner is what a Conn is part of. The reader calls its methods, except those of crew.Source; Conn has Last.
type Owner interface {
	crew.Source
	// Came is told how many bytes came, and returns the most bytes of a frame, and of all frames of a message, just now.
	Came(n int) (frame, message uint64)
	// Receive takes a message. It may block. data is valid until it returns.
	Receive(text bool, data []byte)
	// Controlled is told of every ping and pong.
	Controlled()
	// Left is told that the peer closes, and with what code it is to be answered. When the connection is ending already it may
	// be called too, with CloseNormal.
	Left(code uint16)
	// Broke is told what the peer did against the rules: CloseProtocol, CloseUTF8, CloseTooBig, ClosePolicy for too many
	// fragments, or CloseTooFast for too many control frames. The reason is empty where gws found it. Nothing more is read.
	Broke(code uint16, reason string)
	// Over ends the connection, by Settle. It is told what the reader panicked with, nil if it did not, and called last.
	Over(panicked any)
}

// Conn is one connection. Init and Take come first, then Upgrader.Open, and Read once the owner is complete.
type Conn struct {
	crew.Outlet
	owner Owner
	ws    *gws.Conn // nil until the upgrade is done

	// The reader's own.
	guard  guard
	tcp    *tcpReader // nil over TLS
	early  *[]byte    // what the peer sent right behind its request, nil once that was read
	halted bool       // the guard allows no more
	broken bool       // Raw failed: there is nobody to send a close frame to

	code    uint16                 // guarded by mu; it and reason stay once the outlet is ending
	pingDue atomic.Bool            // Ping was called
	pong    atomic.Pointer[[]byte] // payload of the pong that is due, nil if none is

	mu        sync.Mutex // guards code and the fields below; never held during I/O
	reason    string
	interrupt context.CancelFunc // ends the context of Life, nil if there is none
}

// Init is called before all else.
func (c *Conn) Init(r *crew.Rules, o Owner) {
	c.Outlet.Init(r, o)
	c.owner = o
}

// Deflates reports whether messages may be sent as Deflate has them. It does not change once Upgrader.Open has returned.
func (c *Conn) Deflates() bool { return c.guard.deflate != nil }

// Take gives it the connection, with what the peer has sent behind its request.
func (c *Conn) Take(raw net.Conn, early []byte) {
	c.Raw, c.tcp = raw, newTCPReader(raw)
	if len(early) > 0 {
		c.early = &early
	}
}

// Close ends the connection with a close frame. What the source has ready still goes out before it, as far as there is time
// for closing. It returns at once, and is safe for concurrent use.
func (c *Conn) Close(code uint16, reason string) {
	if c.SetEnding(code, reason) {
		c.Hurry() // the reader sees to the rest
	}
}

// SetEnding notes why the connection ends, for Close. It reports false if that is known already.
func (c *Conn) SetEnding(code uint16, reason string) bool {
	c.mu.Lock()
	first := !c.Ending()
	if first {
		c.code, c.reason = code, reason
		c.End()
	}
	cancel := c.interrupt
	c.mu.Unlock()
	if first && cancel != nil {
		cancel()
	}
	return first
}

// Life returns a context that ends when the connection is about to end. It is asked for once.
func (c *Conn) Life() context.Context {
	// That of the request ends with its handler.
	ctx, cancel := context.WithCancel(context.Background())
	c.mu.Lock()
	c.interrupt = cancel
	c.mu.Unlock()
	if c.Ending() {
		cancel()
	}
	return ctx
}

// Ended returns why the connection ended, once it is settled.
func (c *Conn) Ended() (code uint16, reason string) { return c.code, c.reason }

// Read starts the reader. Its goroutine runs the read loop of gws under our own recover: the Recovery of gws sees neither a
// panic in parsing nor one in the handlers for anything but messages, and OnClose is not called after one.
func (c *Conn) Read() {
	go func() {
		defer c.over()
		c.ws.ReadLoop()
	}()
}

func (c *Conn) over() { c.owner.Over(recover()) }

// Settle takes the connection down after the reader has returned, and waits for the peer. Between, when nothing is written any
// more, it calls end.
func (c *Conn) Settle(end func()) {
	if c.broken || !c.Ending() {
		c.Kill() // a writer that waits for this peer need not wait any longer
	}
	c.Stop()
	c.SetEnding(CloseLost, "connection lost")
	end()
	if !c.broken {
		c.Linger()
	}
	c.Kill()
}
