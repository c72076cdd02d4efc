package eio

import (
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/hub/alarm"
	"telemetryhub/hub/frames"
)

// Stream is what stands behind a session. Receive is never called twice at a time, nor is Next; one may run beside the other.
type Stream interface {
	// Receive takes one message, text or binary. data is valid until it returns. An error means that the message breaks the
	// protocol that is spoken in messages, and ends the session.
	Receive(text bool, data []byte) error
	// Next appends the next message to dst and tells its form; false if there is nothing now. Session.Wake must be called
	// when there is. What is in dst already must be left alone. Where Session.Deflates, the form may be frames.Deflated
	// besides: then the message is the payload of the whole packet, with its type, TypeMessage.
	Next(dst []byte) (msg []byte, form frames.Form, ok bool)
	// End is called once, when neither Receive nor Next runs any more or ever will.
	End()
}

// Session is one session, whatever transport it uses. Its methods return at once and are safe for concurrent use, also after
// the session has ended.
type Session struct {
	srv       *Server
	stream    Stream
	ws        atomic.Pointer[conn] // the transport, nil while that is polling
	pull      sync.Mutex           // held while Stream.Next runs, and guards over and temp; comes before mu
	over      bool                 // the stream is not asked any more
	pingReady atomic.Bool          // a ping is to be sent

	id     string
	opener access.Identity
	source netip.Addr
	remote string
	gone   chan struct{} // closed when the session is about to end

	stranger place // guarded by Server.strangers
	admitted atomic.Bool
	closing  atomic.Bool
	closedBy atomic.Int32 // the cause, once it is closing
	heard    atomic.Int64 // when the last packet came, by Server.clock

	recv sync.Mutex // held while Stream.Receive runs; comes before mu
	temp []byte     // binary data on its way into base64

	mu       sync.Mutex // guards the fields below; never held during I/O or calls of the stream
	poll     *poll      // the GET that waits
	posting  bool
	probe    *conn  // a WebSocket that is about to become the transport
	probed   bool   // it has shown that it works
	rejected bool   // a WebSocket that came too late is being closed
	reason   string // why the session ends
	uses     int    // of the session by requests, connections, and by being open
	linger   *time.Timer
	patience *time.Timer // of a stranger

	beat   alarm.Alarm
	due    time.Duration // when beat is to be called
	pinged time.Duration // when the ping was due that is not answered yet, zero if none is
}

// poll is a GET that waits for something to send.
type poll struct {
	wake chan struct{} // has room for one

	// Guarded by Session.mu.
	answering bool          // the answer is on its way, and the client may have it before we know
	next      chan struct{} // closed at the end, for the GET that waits for that; nil if there is none
}

func (p *poll) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Opener returns who opened the session, nobody if the request did not say.
func (s *Session) Opener() access.Identity { return s.opener }

// Remote returns the address that the session was opened from, for logs.
func (s *Session) Remote() string { return s.remote }

// Transport returns "polling" or "websocket".
func (s *Session) Transport() string {
	if s.ws.Load() != nil {
		return transportWebSocket
	}
	return transportPolling
}

// Deflates reports whether messages may be sent compressed. Once they may, that does not change.
func (s *Session) Deflates() bool {
	c := s.ws.Load()
	return c != nil && c.Deflates()
}

// Wake has the stream asked for what is to be sent.
func (s *Session) Wake() {
	if c := s.ws.Load(); c != nil {
		c.Wake()
		return
	}
	s.mu.Lock()
	p, c := s.poll, s.ws.Load()
	s.mu.Unlock()
	switch {
	case c != nil: // upgraded meanwhile
		c.Wake()
	case p != nil:
		p.signal()
	}
}

// Admit lifts the bounds of strangers from the session.
func (s *Session) Admit() {
	s.mu.Lock()
	if s.patience != nil {
		s.patience.Stop()
	}
	s.mu.Unlock()
	if s.srv.strangers.remove(s) {
		s.srv.Metrics.Strangers.Add(-1)
	}
	s.admitted.Store(true)
}

// Dismiss makes the session a stranger again: it has to be admitted anew in time.
func (s *Session) Dismiss() {
	if s.admitted.Swap(false) {
		s.srv.estrange(s)
	}
}

// Close ends the session. What the stream has ready still goes out before it, as far as there is time for closing. Over
// WebSocket the close frame tells code and reason.
func (s *Session) Close(code uint16, reason string) { s.shut(causeServer, code, reason) }

// shut ends the session. If that is no failure a poll may still fetch the last words, or one that crossed the client's own end
// may learn of it.
func (s *Session) shut(why cause, code uint16, reason string) {
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		return
	}
	s.closedBy.Store(int32(why))
	s.reason = reason
	s.closing.Store(true)
	close(s.gone)
	c, probe, waiting := s.ws.Load(), s.probe, s.poll != nil && !s.poll.answering
	s.beat.Stop()
	if s.patience != nil {
		s.patience.Stop()
	}
	lingers := polite(why) && c == nil && !waiting
	if lingers {
		s.linger = time.AfterFunc(s.srv.CloseTimeout, s.release)
	}
	s.mu.Unlock()
	if s.srv.strangers.remove(s) {
		s.srv.Metrics.Strangers.Add(-1)
	}
	s.srv.Metrics.closed[why].Add(1)
	if !polite(why) {
		s.srv.forget(s)
	}
	for _, ws := range []*conn{c, probe} {
		if ws != nil {
			ws.close(code, reason)
		}
	}
	if !lingers {
		go s.release() // its caller may hold locks that the end of the stream needs
	}
}

// stay has a session that is closing wait for one more poll. It reports false if none will find it.
func (s *Session) stay() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !polite(cause(s.closedBy.Load())) {
		return false
	}
	if s.linger == nil {
		s.uses++ // that of being open was given back, as this poll waited
		s.linger = time.AfterFunc(s.srv.CloseTimeout, s.release)
	}
	return true
}

// polite reports whether a poll may still fetch the last words of a session that ends like this.
func polite(why cause) bool { return why == causeServer || why == causeStop || why == causeClient }

// hang ends the wait for a poll that fetches the last words.
func (s *Session) hang() {
	s.mu.Lock()
	lingers := s.linger != nil && s.linger.Stop()
	s.mu.Unlock()
	if lingers {
		s.srv.forget(s)
		s.release()
	}
}

func (s *Session) closedByClient() bool {
	return s.closing.Load() && cause(s.closedBy.Load()) == causeClient
}

// hold keeps the session from ending until release. It reports false if it has ended.
func (s *Session) hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uses == 0 {
		return false
	}
	s.uses++
	return true
}

// release gives back a hold. After the last one nothing of the session is left.
func (s *Session) release() {
	s.mu.Lock()
	s.uses--
	last, reason := s.uses == 0, s.reason
	s.mu.Unlock()
	if !last {
		return
	}
	s.srv.Logger.Debug("session ended", "remote", s.remote, "cause", causes[s.closedBy.Load()], "reason", reason)
	s.pull.Lock()
	s.over = true
	s.pull.Unlock()
	defer s.srv.drop(s)
	defer s.recovered()
	if s.stream != nil {
		s.stream.End()
	}
}

// recovered is deferred around all that the stream does: a panic ends that one session only.
func (s *Session) recovered() {
	if v := recover(); v != nil {
		s.srv.panicked(s.remote, v, debug.Stack())
		s.shut(causePanic, frames.CloseInternal, "the hub failed on this; the reason is in its log")
	}
}

// limit returns the most bytes of a message or a request.
func (s *Session) limit() int {
	if s.admitted.Load() {
		return s.srv.MaxPayload
	}
	return s.srv.StrangerPayload
}

// take handles a packet from the transport in use. It reports false if the session has ended.
func (s *Session) take(p packet) bool {
	s.heard.Store(int64(s.srv.now()))
	switch p.kind {
	case TypeMessage:
		return s.receive(!p.binary, p.data)
	case typePong:
		s.answered()
	case typeClose:
		s.shut(causeClient, frames.CloseNormal, "")
	case typeNoop, typeUpgrade:
	default:
		s.broke("a packet that only a server sends")
	}
	return !s.closing.Load()
}

// broke ends the session because of what the client sent.
func (s *Session) broke(reason string) { s.shut(causeProtocol, frames.ClosePolicy, reason) }

func (s *Session) receive(text bool, data []byte) (good bool) {
	s.recv.Lock()
	defer s.recv.Unlock()
	defer s.recovered()
	if s.closing.Load() {
		return false
	}
	s.srv.Metrics.MessagesIn.Add(1)
	if err := s.stream.Receive(text, data); err != nil {
		s.broke(err.Error())
		return false
	}
	return !s.closing.Load()
}

// startBeat begins to ping.
func (s *Session) startBeat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return
	}
	now := s.srv.now()
	s.due = s.srv.together(now + s.srv.PingInterval)
	s.beat.Init(s.srv.clock, s.tick)
	s.beat.Set(s.due)
}

// tick pings, or ends the session if the last ping was not answered.
func (s *Session) tick() {
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		return
	}
	now := s.srv.now()
	late := now - s.due
	if late < away {
		late = 0 // otherwise it was the server that did nothing, and answers may wait in the sockets
	}
	heard := time.Duration(s.heard.Load())
	switch {
	case s.pinged == 0 || heard > s.pinged:
		s.pinged = s.due + late
		s.pingReady.Store(true)
		s.scheduleLocked(now, s.pinged+s.srv.PingTimeout)
	case late > 0:
		s.pinged += late
		s.scheduleLocked(now, s.pinged+s.srv.PingTimeout)
	default:
		s.mu.Unlock()
		s.shut(causePing, closeSlow, "no answer to a ping; reconnect")
		return
	}
	s.mu.Unlock()
	s.Wake()
}

func (s *Session) scheduleLocked(now, due time.Duration) {
	s.due = due
	s.beat.Set(max(due, now+time.Millisecond))
}

// answered takes a pong.
func (s *Session) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pinged == 0 || s.closing.Load() {
		return
	}
	s.pinged = 0
	now := s.srv.now()
	s.scheduleLocked(now, s.srv.together(now+s.srv.PingInterval))
}

// overdue ends the session if it should have ended by now, but its timer is late.
func (s *Session) overdue() bool {
	s.mu.Lock()
	now := s.srv.now()
	dead := s.pinged != 0 && time.Duration(s.heard.Load()) <= s.pinged && now >= s.due && now < s.due+away
	s.mu.Unlock()
	if dead {
		s.shut(causePing, closeSlow, "no answer to a ping; reconnect")
	}
	return dead || s.closing.Load()
}

// takePing reports whether a ping is to be sent, which the caller then does.
func (s *Session) takePing() bool {
	return s.pingReady.Load() && s.pingReady.Swap(false)
}

// MaxPayload returns the most bytes of a message from an admitted session.
func (s *Session) MaxPayload() int { return s.srv.MaxPayload }

// Admitted reports whether the session is no stranger.
func (s *Session) Admitted() bool { return s.admitted.Load() }
