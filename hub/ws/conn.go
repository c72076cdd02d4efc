package ws

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device/wire"
	"telemetryhub/hub/access"
	"telemetryhub/hub/crew"
)

// The size of the buffer that stays with every connection. Payloads that are larger are read past it. Viewers hardly send
// anything.
const (
	readBuffer       = 1024
	viewerReadBuffer = 64
)

// stream is what stands behind a connection: the session of a device, or the subscription of a viewer.
type stream interface {
	// receive takes one message. The read loop calls it, and it may block. The frame is not kept. A violation ends the
	// connection.
	receive(text bool, frame []byte) violation
	// next appends the next message to dst and tells its form; false if there is nothing now. Only the writer calls it.
	next(dst []byte) (frame []byte, text, ok bool)
	// alive is told of every ping and pong.
	alive()
	// end is called once, when neither receive nor next runs any more or ever will.
	end()
}

// conn is one connection after the upgrade, and the Peer of the hub. Its reader is the one goroutine that lives as long
// as the connection; a writer runs only while there is something to write.
type conn struct {
	crew.Outlet
	srv    *server
	ws     *gws.Conn
	stream stream
	name   string // of the identity, for logs

	// The reader's own.
	guard   guard
	tcp     *tcpReader // nil over TLS
	early   *[]byte    // what the peer sent right behind its request, nil once that was read
	halted  bool       // the guard allows no more
	broken  bool       // raw failed: there is nobody to send a close frame to
	unwatch func()     // ends the watch over the identity

	// Times are counted from server.epoch.
	begun     time.Duration
	nextPing  time.Duration // the timer's own, and so is due
	due       time.Duration // when the timer should fire
	lastFrame atomic.Int64  // when the last frame came
	receiving atomic.Bool   // the hub has not taken the last message yet
	greeted   atomic.Bool   // the first valid message was taken
	timer     *time.Timer

	failed atomic.Bool // something of this connection panicked: the stream is not asked any more

	mu        sync.Mutex     // guards the fields below; never held during I/O
	code      wire.CloseCode // it and reason stay once the outlet is ending
	pingDue   bool
	reason    string
	interrupt context.CancelFunc // ends the context of life, nil if there is none
	pong      *[]byte            // payload of the pong that is due, nil if none is
}

// Close ends the connection with a close frame. What the stream has ready still goes out before it, as far as there is
// time for closing. It returns at once.
func (c *conn) Close(code wire.CloseCode, reason string) {
	if !c.setEnding(code, reason) {
		return
	}
	c.cancel()
	c.Hurry() // the reader sees to the rest
}

// setEnding notes why the connection ends. It reports false if that is known already.
func (c *conn) setEnding(code wire.CloseCode, reason string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Ending() {
		return false
	}
	c.code, c.reason = code, reason
	c.End()
	return true
}

// life returns a context that ends when the connection is about to end. It is asked for once.
func (c *conn) life() context.Context {
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

// cancel ends the context of life.
func (c *conn) cancel() {
	c.mu.Lock()
	cancel := c.interrupt
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// remote returns the address of the peer, for logs.
func (c *conn) remote() string { return c.Raw.RemoteAddr().String() }

// beginning makes the stream of a connection that was upgraded. A violation closes the connection at once.
type beginning func(*conn, access.Identity, wire.Format) (stream, violation)

func (s *server) newConn(raw net.Conn, early []byte) *conn {
	c := &conn{srv: s, stream: silence{}}
	c.Init(&s.rules, c)
	c.Raw, c.tcp = raw, newTCPReader(raw)
	if len(early) > 0 {
		c.early = &early
	}
	return c
}

// answer does the upgrade.
func (c *conn) answer(o offer) error {
	upgrader, size := c.srv.plain, readBuffer
	if c.srv.maxFrame <= maxViewerFrame {
		size = viewerReadBuffer
	}
	// gws looks only at the first line of each of these, so it gets a request that has but one.
	r := &http.Request{Method: http.MethodGet, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, headerVersion: {"13"}, headerKey: {o.key},
	}}
	if o.protocol != "" {
		upgrader = c.srv.agreed
		r.Header[headerProtocol] = []string{o.protocol}
	}
	socket, err := upgrader.UpgradeFromConn((*side)(c), bufio.NewReaderSize((*side)(c), size), r)
	c.ws = socket
	return err
}

// start lets the connection go. The request, its buffers and the stack of its handler are free as soon as that has returned:
// the reader, which stays as long as the connection, needs none of it.
func (c *conn) start(id access.Identity, f wire.Format) {
	c.startTimer()
	if !c.begin(id, f) {
		go c.ended() // it waits for the peer
		return
	}
	// The read loop of gws runs under our own recover. The Recovery of gws sees neither a panic in parsing nor one in the
	// handlers for anything but messages, and OnClose is not called after one.
	go func() {
		defer c.ended()
		c.ws.ReadLoop()
	}()
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

func (silence) receive(bool, []byte) violation       { return violation{} }
func (silence) next(dst []byte) ([]byte, bool, bool) { return dst, false, false }
func (silence) alive()                               {}
func (silence) end()                                 {}

// ended is deferred by the reader. When it returns nothing of the connection is left.
func (c *conn) ended() {
	if v := recover(); v != nil {
		c.panicked(v)
	}
	c.finish()
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
	c.Close(closeInternal, "the hub failed on this; the reason is in its log")
	c.Wake() // if the connection was ending already, the close frame is still to be sent
}

// finish takes the connection down after the reader has returned.
func (c *conn) finish() {
	c.timer.Stop()
	c.cancel()
	if c.broken || !c.Ending() {
		c.Kill() // a writer that waits for this peer need not wait any longer
	}
	c.Stop()
	c.endStream()
	if !c.broken {
		c.Linger()
	}
	c.Kill()
	c.setEnding(closeLost, "connection lost")
	c.srv.Metrics.countClose(c.code)
	c.srv.Logger.Debug("connection ended", "remote", c.remote(), "identity", c.name, "code", uint16(c.code), "reason", c.reason)
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
	c.timer = time.AfterFunc(time.Hour, c.tick)
	c.due = min(c.nextPing, c.begun+c.srv.FirstFrame)
	c.timer.Reset(c.due - c.begun)
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
		c.mu.Lock()
		c.pingDue = true
		c.mu.Unlock()
		c.Wake()
	}
	wait := max(min(c.nextPing, dead, first)-now, time.Millisecond)
	c.due = now + wait
	c.timer.Reset(wait)
}
