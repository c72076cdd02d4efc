package eio

import (
	"runtime/debug"
	"sync/atomic"

	"telemetryhub/hub/frames"
)

// readBuffer is the size of the buffer that stays with every connection. Most messages of clients are small; what is larger is
// read past it.
const readBuffer = 256

// stage is what a WebSocket is for its session.
type stage int32

const (
	stageProbe    stage = iota // it is being tried
	stageAttached              // it is the transport
	stageRejected              // it came too late, and is only closed in order
)

// conn is one WebSocket. Its reader is the one goroutine that lives as long as the connection; a writer runs only while there
// is something to write.
type conn struct {
	frames.Conn
	srv     *Server
	session *Session
	stage   atomic.Int32           // a stage
	started atomic.Bool            // Raw is there, and the reader and the writer run
	hello   atomic.Pointer[[]byte] // a text to be sent before all else, nil if there is none
}

var _ frames.Owner = (*conn)(nil)

// close is that of frames.Conn, for one that may not have started yet.
func (c *conn) close(code uint16, reason string) {
	if c.SetEnding(code, reason) && c.started.Load() {
		c.Hurry()
	}
}

// fail ends the connection, and with it the session whose transport it is.
func (c *conn) fail(why cause, code uint16, reason string) {
	c.close(code, reason)
	if stage(c.stage.Load()) == stageAttached {
		c.session.shut(why, code, reason)
	}
}

// Came counts. A stranger gets less.
func (c *conn) Came(n int) (frame, message uint64) {
	c.srv.Metrics.BytesIn.Add(uint64(n))
	limit := uint64(c.session.limit())
	return limit, limit
}

// Receive reads a packet.
func (c *conn) Receive(text bool, data []byte) {
	if !text {
		c.take(packet{kind: TypeMessage, binary: true, data: data})
		return
	}
	p, err := readText(data)
	if err != nil {
		c.fail(causeProtocol, frames.ClosePolicy, "not an Engine.IO packet")
		return
	}
	c.take(p)
}

// Controlled has nothing to note: Engine.IO has pings of its own.
func (c *conn) Controlled() {}

// Left ends the session as its client wants.
func (c *conn) Left(code uint16) { c.fail(causeClient, code, "") }

// Broke ends the session because of what its client sent.
func (c *conn) Broke(code uint16, reason string) {
	why := causeProtocol
	if code == frames.CloseTooBig {
		why = causeTooBig
	}
	c.fail(why, code, reason)
}

// Over takes the connection down after the reader has returned. Nothing of it is left then.
func (c *conn) Over(panicked any) {
	if panicked != nil {
		c.srv.panicked(c.session.remote, panicked, debug.Stack())
		c.close(frames.CloseInternal, "the hub failed on this; the reason is in its log")
	}
	c.Settle(func() { c.session.detach(c) })
	c.session.release()
	c.srv.dropConn(c)
}
