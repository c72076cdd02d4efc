package ws

import (
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub/access"
	"telemetryhub/hub/alarm"
	"telemetryhub/hub/frames"
)

// The size of the buffer that stays with every connection. Viewers hardly send anything.
const (
	readBuffer       = 1024
	viewerReadBuffer = 64
)

// violation says why a connection must end. The zero violation means that all is well.
type violation struct {
	code   wire.CloseCode
	reason string
}

// stream is what stands behind a connection: the session of a device, or the subscription of a viewer.
type stream interface {
	// receive takes one message. The read loop calls it, and it may block. The frame is not kept. A violation ends the
	// connection.
	receive(text bool, frame []byte) violation
	// next appends the next message to dst and tells its form; false if there is nothing now. Only the writer calls it.
	next(dst []byte) (frame []byte, form frames.Form, ok bool)
	// alive is told of every ping and pong.
	alive()
	// end is called once, when neither receive nor next runs any more or ever will.
	end()
}

// conn is one connection after the upgrade, and the Peer of the hub. Its reader is the one goroutine that lives as long
// as the connection; a writer runs only while there is something to write.
type conn struct {
	frames.Conn
	srv     *server
	stream  stream
	name    string // of the identity, for logs
	unwatch func() // ends the watch over the identity

	// Times are those of server.clock.
	begun     time.Duration
	nextPing  time.Duration // the timer's own, and so is due
	due       time.Duration // when it is to be called
	lastFrame atomic.Int64  // when the last frame came
	receiving atomic.Bool   // the hub has not taken the last message yet
	greeted   atomic.Bool   // the first valid message was taken
	timer     alarm.Alarm

	failed atomic.Bool // something of this connection panicked: the stream is not asked any more
}

// Close is that of frames.Conn, with the codes of the hub.
func (c *conn) Close(code wire.CloseCode, reason string) { c.Conn.Close(uint16(code), reason) }

// remote returns the address of the peer, for logs.
func (c *conn) remote() string { return c.Raw.RemoteAddr().String() }

// beginning makes the stream of a connection that was upgraded. A violation closes the connection at once.
type beginning func(*conn, access.Identity, wire.Format) (stream, violation)

func (s *server) newConn(raw net.Conn, early []byte) *conn {
	c := &conn{srv: s, stream: silence{}}
	c.Init(&s.rules, c)
	c.Take(raw, early)
	return c
}

// start lets the connection go. The request, its buffers and the stack of its handler are free as soon as that has returned:
// the reader, which stays as long as the connection, needs none of it.
func (c *conn) start(id access.Identity, f wire.Format) {
	c.startTimer()
	if !c.begin(id, f) {
		go c.Over(nil) // it waits for the peer
		return
	}
	c.Read()
}

// begin gives the connection its stream and lets the writer go. It reports false if the connection is to end.
func (c *conn) begin(id access.Identity, f wire.Format) (good bool) {
	defer c.Release()
	defer c.recovered()
	c.unwatch = c.srv.watch(c, id)
	if c.Ending() {
		return false // the identity has ended already
	}
	st, v := c.srv.begin(c, id, f)
	if v.code != 0 {
		c.Close(v.code, v.reason)
		return false
	}
	c.stream = st
	return true
}

// silence is the stream of a connection that has none yet.
type silence struct{}

func (silence) receive(bool, []byte) violation              { return violation{} }
func (silence) next(dst []byte) ([]byte, frames.Form, bool) { return dst, frames.Text, false }
func (silence) alive()                                      {}
func (silence) end()                                        {}

// Over takes the connection down after the reader has returned. Nothing of it is left then.
func (c *conn) Over(panicked any) {
	if panicked != nil {
		c.panicked(panicked)
	}
	c.timer.Stop()
	c.Settle(c.endStream)
	code, reason := c.Ended()
	c.srv.Metrics.countClose(wire.CloseCode(code))
	c.srv.Logger.Debug("connection ended", "remote", c.remote(), "identity", c.name, "code", code, "reason", reason)
	c.srv.drop(c)
}

// recovered is deferred around everything else that runs for one connection: a panic ends that one only.
func (c *conn) recovered() {
	if v := recover(); v != nil {
		c.panicked(v)
	}
}

func (c *conn) panicked(v any) {
	c.failed.Store(true)
	c.srv.Metrics.Panics.Add(1)
	c.srv.Logger.Error("panic: the connection was closed",
		"remote", c.remote(), "identity", c.name, "panic", v, "stack", string(debug.Stack()))
	c.Close(frames.CloseInternal, "the hub failed on this; the reason is in its log")
	c.Wake() // if the connection was ending already, the close frame is still to be sent
}

func (c *conn) endStream() {
	defer c.recovered()
	if c.unwatch != nil {
		c.unwatch()
	}
	c.stream.end()
}

// startTimer starts the one timer of the connection, for pings, for signs of life, and for the first frame.
func (c *conn) startTimer() {
	c.begun = c.srv.now()
	c.lastFrame.Store(int64(c.begun))
	// Peers that came together are not pinged together.
	c.nextPing = c.srv.together(c.begun + spread(c.srv.Ping))
	c.due = min(c.nextPing, c.begun+c.srv.FirstFrame)
	c.timer.Init(c.srv.clock, c.tick)
	c.timer.Set(c.due)
}

// tick does what is due and sets the timer for what is due next.
func (c *conn) tick() {
	defer c.recovered()
	if c.Ending() {
		return
	}
	now := c.srv.now()
	if late := now - c.due; late > away {
		// It was the hub that did nothing all the time, as when its process was stopped. Frames may wait in the socket.
		c.lastFrame.Add(int64(late))
		c.begun += late
	}
	if c.receiving.Load() {
		// The hub makes this peer wait, and its frames wait in the socket: that is no silence of the peer.
		c.lastFrame.Store(int64(now))
		c.greeted.Store(true)
	}
	dead := time.Duration(c.lastFrame.Load()) + time.Duration(deadAfter*float64(c.srv.Ping))
	first := c.begun + c.srv.FirstFrame
	switch greeted := c.greeted.Load(); {
	case now >= dead:
		c.Close(wire.CloseSlow, "no sign of life: answer pings; reconnect")
		return
	case !greeted && now >= first:
		c.Close(wire.CloseSlow, "nothing valid came in time after connecting; reconnect")
		return
	case greeted:
		first = dead
	}
	if now >= c.nextPing {
		if c.nextPing += c.srv.Ping; c.nextPing <= now {
			c.nextPing = c.srv.together(now + c.srv.Ping)
		}
		c.Ping()
	}
	wait := max(min(c.nextPing, dead, first)-now, time.Millisecond)
	c.due = now + wait
	c.timer.Set(c.due)
}
