package eio

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"
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
	srv     *Server
	session *Session
	raw     net.Conn // TCP or TLS
	ws      *gws.Conn

	// The reader's own.
	guard  guard
	early  []byte // what the client sent right behind its request
	halted bool   // the guard allows no more
	broken bool   // raw failed: there is nobody to send a close frame to

	stage   atomic.Int32  // a stage
	writer  atomic.Uint32 // see write.go
	idle    chan struct{} // closed by the last writer when writer is stopped
	started atomic.Bool   // raw is there, and the reader and the writer run
	ending  atomic.Bool   // code, reason and endBy are set and stay

	closed bool // the writer's own: the close frame is out, nothing may follow

	mu      sync.Mutex // guards the fields below; never held during I/O
	code    uint16
	reason  string
	endBy   time.Time // when closing must be done
	hello   []byte    // a text to be sent before all else
	pongDue bool
	pong    []byte // payload of the pong that is due
}

// close ends the connection with a close frame. What the stream has ready still goes out before it, as far as there is time
// for closing. It returns at once.
func (c *conn) close(code uint16, reason string) {
	if c.setEnding(code, reason) && c.started.Load() {
		c.hurry()
	}
}

// hurry has the reader and the writer notice that the connection is ending.
func (c *conn) hurry() {
	// Errors of the next lines mean that the connection is gone already, which the reader notices.
	_ = c.raw.SetWriteDeadline(c.endBy) // also for a write that is stuck now
	c.wake()
	_ = c.raw.SetReadDeadline(time.Unix(1, 0)) // wakes the reader, which sees to the rest
}

// setEnding notes why the connection ends. It reports false if that is known already.
func (c *conn) setEnding(code uint16, reason string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending.Load() {
		return false
	}
	c.code, c.reason, c.endBy = code, reason, time.Now().Add(c.srv.CloseTimeout)
	c.ending.Store(true)
	return true
}

// tcp returns the connection below TLS.
func (c *conn) tcp() net.Conn {
	if t, ok := c.raw.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c.raw
}

// kill cuts the connection at once. The Close of TLS would wait for the client.
func (c *conn) kill() { _ = c.tcp().Close() } // an error only says that it is closed already

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
	if c.broken || !c.ending.Load() {
		c.kill() // a writer that waits for this client need not wait any longer
	}
	c.stopWriter()
	c.setEnding(closeEmpty, "the connection broke")
	c.session.detach(c)
	if !c.broken {
		c.linger()
	}
	c.kill()
}

// linger waits until the client has hung up or the time for closing is over. To close a socket that holds unread bytes resets
// the connection, and the client might lose what was sent last.
func (c *conn) linger() {
	if t, ok := c.raw.(*tls.Conn); ok {
		_ = t.CloseWrite() // only a courtesy: the close frame is out
	}
	tcp := c.tcp()
	if half, ok := tcp.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	if tcp.SetReadDeadline(c.endBy) != nil {
		return
	}
	bin := make([]byte, 512)
	for {
		if _, err := tcp.Read(bin); err != nil {
			return // the client, or the deadline
		}
	}
}
