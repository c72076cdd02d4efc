package eio

import (
	"bufio"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/lxzan/gws"

	"telemetryhub/hub/crew"
)

// readBuffer is the size of the buffer that stays with every connection. Payloads that are larger are read past it.
const readBuffer = 1024

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
	crew.Outlet
	srv     *Server
	session *Session
	stage   atomic.Int32 // a stage
	control atomic.Bool  // hello or a pong may be due
	started atomic.Bool  // Raw is there, and the reader and the writer run

	// The reader's own.
	halted bool // the guard allows no more
	broken bool // Raw failed: there is nobody to send a close frame to
	ws     *gws.Conn
	guard  guard
	early  []byte // what the client sent right behind its request

	mu      sync.Mutex // guards the fields below; never held during I/O
	pongDue bool
	code    uint16 // it and reason stay once the outlet is ending
	reason  string
	hello   []byte // a text to be sent before all else
	pong    []byte // payload of the pong that is due
}

// close ends the connection with a close frame. What the stream has ready still goes out before it, as far as there is time
// for closing. It returns at once.
func (c *conn) close(code uint16, reason string) {
	if c.setEnding(code, reason) && c.started.Load() {
		c.Hurry()
	}
}

// setEnding notes why the connection ends. It reports false if that is known already.
func (c *conn) setEnding(code uint16, reason string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Ending() {
		return false
	}
	c.code, c.reason = code, reason
	c.End()
	return true
}

// answer does the upgrade.
func (c *conn) answer(key string) error {
	// gws looks only at the first line of each of these, so it gets a request that has but one.
	r := &http.Request{Method: http.MethodGet, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, headerVersion: {"13"}, headerKey: {key},
	}}
	socket, err := c.srv.upgrader.UpgradeFromConn((*side)(c), bufio.NewReaderSize((*side)(c), readBuffer), r)
	c.ws = socket
	return err
}

// run is the life of the connection. It runs the read loop of gws under our own recover: the Recovery of gws sees neither a
// panic in parsing nor one in the handlers for anything but messages, and OnClose is not called after one. Its stack stays with
// an idle connection, and a little more on it would double that.
func (c *conn) run() {
	defer c.ended()
	c.ws.ReadLoop()
}

// ended is deferred by run. When it returns nothing of the connection is left.
func (c *conn) ended() {
	if v := recover(); v != nil {
		c.srv.panicked(c.session.remote, v, debug.Stack())
		c.close(closeInternal, "the hub failed on this; the reason is in its log")
	}
	c.finish()
	c.session.release()
	c.srv.dropConn(c)
}

// finish takes the connection down after the reader has returned.
func (c *conn) finish() {
	if c.broken || !c.Ending() {
		c.Kill() // a writer that waits for this client need not wait any longer
	}
	c.Stop()
	c.setEnding(closeEmpty, "the connection broke")
	c.session.detach(c)
	if !c.broken {
		c.Linger()
	}
	c.Kill()
}
