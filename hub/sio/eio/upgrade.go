package eio

import (
	"net/http"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/hub/crew"
	"telemetryhub/hub/frames"
)

// probe is what a client sends to see whether a WebSocket works, and what it gets back.
const probe = "probe"

// readKey checks the request as RFC 6455 section 4.2.1 wants it and returns its key.
func readKey(r *http.Request) (string, *answer) {
	key := frames.Key(r)
	switch {
	case r.Method != http.MethodGet:
		return "", refuse(refusedMethod, "A WebSocket is opened with GET.")
	case !frames.WantsUpgrade(r), r.ProtoMajor != 1 || r.ProtoMinor < 1, r.ContentLength != 0:
		return "", refuse(refusedRequest, "transport=websocket is for WebSocket clients: Connection: Upgrade, Upgrade: websocket.")
	case !frames.IsVersion13(r):
		return "", refuse(refusedRequest, "Only version 13 of the WebSocket protocol is spoken here.")
	case key == "":
		return "", refuse(refusedRequest, "Sec-WebSocket-Key must be there once, with 16 bytes in base64.")
	}
	return key, nil
}

// serveWebSocket upgrades the request, to open a session or to become the transport of one, which is held then.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request, one *Session, id access.Identity) {
	key, refused := readKey(r)
	st := stageProbe
	if one == nil && refused == nil {
		st = stageAttached
		one, refused = s.begin(r, id)
	}
	if refused != nil {
		s.refuse(w, r, refused)
		if one != nil {
			one.release()
		}
		return
	}
	c := &conn{srv: s, session: one}
	c.Init(&s.rules, c)
	if st == stageProbe {
		if st, refused = one.offer(c); refused != nil {
			s.refuse(w, r, refused)
			one.release()
			return
		}
	}
	c.stage.Store(int32(st))
	raw, early, err := crew.Hijack(w)
	if err != nil {
		refused = refuse(refusedInternal, "The hub cannot open a WebSocket here.")
		refused.cause = err
		s.refuse(w, r, refused)
		one.abandon(c)
		return
	}
	c.Take(raw, early)
	if err := s.upgrader.Open(&c.Conn, key, "", frames.AnswerDeflate(r)); err != nil {
		s.Logger.Debug("the client left during the upgrade", "remote", r.RemoteAddr, "err", err)
		c.Kill()
		one.abandon(c)
		return
	}
	s.addConn(c)
	c.start(st)
	c.Read() // the request, its buffers and this stack are free as soon as the handler has returned
}

// offer makes c the WebSocket that may become the transport. If there is one already, c is only closed in order, as clients
// take a refusal for a broken network.
func (s *Session) offer(c *conn) (stage, *answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing.Load():
		return 0, refuse(refusedSID, "This session is over. Open a new one.")
	case s.ws.Load() == nil && s.probe == nil:
		s.probe, s.probed = c, false
		return stageProbe, nil
	case s.rejected:
		return 0, refuse(refusedRequest, "This session has a WebSocket already.")
	}
	s.rejected = true
	return stageRejected, nil
}

// abandon forgets a WebSocket that did not come to life, and gives back its hold.
func (s *Session) abandon(c *conn) {
	s.forsake(c)
	if stage(c.stage.Load()) == stageAttached {
		s.shut(causeTransport, frames.CloseEmpty, "the client left")
	}
	s.release()
}

// forsake takes c out of the places that it may have besides that of the transport.
func (s *Session) forsake(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probe == c {
		s.probe = nil
	}
	if stage(c.stage.Load()) == stageRejected {
		s.rejected = false
	}
}

// detach is called when the connection is over.
func (s *Session) detach(c *conn) {
	s.forsake(c)
	if s.ws.Load() == c {
		s.shut(causeTransport, frames.CloseEmpty, "the connection broke")
	}
}

// start lets a connection go after its upgrade.
func (c *conn) start(st stage) {
	s := c.session
	switch st {
	case stageAttached:
		hello := s.appendOpen(nil, []string{})
		c.hello.Store(&hello)
		s.mu.Lock()
		s.ws.Store(c)
		s.mu.Unlock()
	case stageProbe:
		time.AfterFunc(c.srv.UpgradeTimeout, func() {
			if stage(c.stage.Load()) == stageProbe {
				c.close(closeSlow, "the upgrade was not finished in time")
			}
		})
	case stageRejected:
		c.close(frames.ClosePolicy, "this session has a WebSocket already")
	}
	if s.closing.Load() {
		c.close(frames.CloseNormal, "this session is over")
	}
	c.started.Store(true)
	if c.Ending() {
		c.Hurry()
	}
	c.Wake()
	c.Release()
}

// take handles a packet of the WebSocket.
func (c *conn) take(p packet) {
	switch stage(c.stage.Load()) {
	case stageAttached:
		c.session.take(p)
		return
	case stageRejected:
		return
	}
	switch {
	case p.kind == typePing && !p.binary && string(p.data) == probe:
		c.session.probeAnswered(c)
	case p.kind == typeUpgrade && c.session.attach(c):
	default:
		c.close(frames.ClosePolicy, "a probe was expected")
	}
}

// probeAnswered answers a probe, and sends the poll home so that the client can go on.
func (s *Session) probeAnswered(c *conn) {
	hello := append([]byte{typePong}, probe...)
	c.hello.Store(&hello)
	s.mu.Lock()
	s.probed = true
	p := s.poll
	s.mu.Unlock()
	c.Wake()
	if p != nil {
		p.signal()
	}
}

// attach makes c the transport of the session. It reports false if it may not become that.
func (s *Session) attach(c *conn) bool {
	// No poll is asking the stream meanwhile, and none will afterwards.
	s.pull.Lock()
	s.mu.Lock()
	good := s.probe == c && s.probed && !s.closing.Load()
	var p *poll
	if good {
		s.probe = nil
		c.stage.Store(int32(stageAttached))
		s.ws.Store(c)
		p = s.poll
	}
	s.mu.Unlock()
	s.pull.Unlock()
	if !good {
		return false
	}
	s.heard.Store(int64(s.srv.now()))
	s.srv.Metrics.Upgraded.Add(1)
	if p != nil {
		p.signal()
	}
	c.Wake()
	return true
}
