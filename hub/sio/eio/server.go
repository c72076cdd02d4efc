package eio

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/hub/alarm"
	"telemetryhub/hub/crew"
	"telemetryhub/hub/frames"
)

// Names of the transports.
const (
	transportPolling   = "polling"
	transportWebSocket = "websocket"
)

// Close codes of the hub's other sockets, which clients of Engine.IO do not look at.
const (
	closeSlow     = 4001
	closeDraining = 4002
)

// Server answers the requests of Engine.IO clients, at whatever path. It is safe for concurrent use.
type Server struct {
	Options
	open      func(*Session) Stream
	clock     *alarm.Clock
	upgrader  *frames.Upgrader
	rules     crew.Rules
	strangers strangers

	mu       sync.Mutex // guards the fields below
	sessions map[string]*Session
	conns    map[*conn]struct{}
	left     int // sessions that have not ended, and connections
	draining bool
	empty    chan struct{} // closed when nothing is left while draining
}

// New returns a server. It calls open once for each session, and starts nothing.
func New(open func(*Session) Stream, o Options) (*Server, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	return &Server{
		Options: o, open: open, clock: alarm.New(), strangers: strangers{max: o.MaxStrangers, grace: o.StrangerTimeout / 5, from: map[netip.Addr]*list.List{}},
		rules:    crew.Rules{Crew: o.Crew, WriteTimeout: o.WriteTimeout, CloseTimeout: o.CloseTimeout, Written: &o.Metrics.BytesOut},
		sessions: map[string]*Session{}, conns: map[*conn]struct{}{}, empty: make(chan struct{}),
		upgrader: frames.NewUpgrader(o.MaxPayload, readBuffer),
	}, nil
}

func (s *Server) now() time.Duration { return s.clock.Now() }

// together rounds the time of a ping down to a moment that many share: it must not be later than clients were told.
func (s *Server) together(at time.Duration) time.Duration { return alarm.Sooner(at, s.PingInterval) }

func (s *Server) panicked(remote string, v any, stack []byte) {
	s.Metrics.Panics.Add(1)
	s.Logger.Error("panic: the session was closed", "remote", remote, "panic", v, "stack", string(stack))
}

// Drain makes the server refuse new sessions from now on, with 503 and Retry-After.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return
	}
	s.draining = true
	s.leaveLocked(0)
}

// Shutdown ends all sessions, telling their clients to come back, and returns when nothing is left of them. When ctx ends,
// what is left is cut, and Shutdown returns an error that says so.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.mu.Lock()
	all := make([]*Session, 0, len(s.sessions))
	for _, one := range s.sessions {
		all = append(all, one)
	}
	s.mu.Unlock()
	for _, one := range all {
		one.shut(causeStop, closeDraining, "the hub is stopping; come again later")
	}
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	cut := s.left
	for c := range s.conns {
		c.close(closeDraining, "the hub is stopping; come again later")
		c.Kill()
	}
	s.mu.Unlock()
	for _, one := range all {
		one.hang()
	}
	<-s.empty
	return fmt.Errorf("stop in order: %w: %d sessions or connections were cut", context.Cause(ctx), cut)
}

// leaveLocked counts what has ended.
func (s *Server) leaveLocked(n int) {
	s.left -= n
	if s.draining && s.left == 0 {
		close(s.empty)
	}
}

// forget takes the session out of the table, so that its sid is unknown.
func (s *Server) forget(one *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, one.id)
}

// drop is called when nothing of the session is left.
func (s *Server) drop(one *Session) {
	s.Metrics.Open.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, one.id)
	s.leaveLocked(1)
}

func (s *Server) addConn(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	s.left++
}

func (s *Server) dropConn(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.leaveLocked(1)
}

// begin opens a session, held once for its caller.
func (s *Server) begin(r *http.Request, id access.Identity) (*Session, *answer) {
	one := &Session{
		srv: s, id: newID(), opener: id, source: access.Subscriber(s.Source(r)), remote: r.RemoteAddr, gone: make(chan struct{}), uses: 2,
	}
	s.mu.Lock()
	switch {
	case s.draining:
		s.mu.Unlock()
		return nil, refuse(refusedStopping, "The hub is stopping. Come again later.")
	case len(s.sessions) >= s.MaxSessions:
		s.mu.Unlock()
		return nil, refuse(refusedFull, "There are too many sessions. Come again later.")
	}
	s.sessions[one.id] = one
	s.left++
	s.mu.Unlock()
	s.Metrics.Open.Add(1)
	s.Metrics.Opened.Add(1)
	if !s.estrange(one) {
		one.release()
		return nil, refuse(refusedFull, "Too many connect from your address at once. Come again later.")
	}
	if !one.openStream() {
		one.release()
		return nil, refuse(refusedInternal, "The hub failed on this; the reason is in its log.")
	}
	one.startBeat()
	return one, nil
}

func (s *Session) openStream() (good bool) {
	defer s.recovered()
	s.stream = s.srv.open(s)
	return true
}

// estrange makes the session a stranger, with the time that it has. It reports false if there is no place for it: then it is
// closed.
func (s *Server) estrange(one *Session) bool {
	victim, ok := s.strangers.add(one, time.Now())
	if !ok {
		one.shut(causeDisplaced, closeSlow, "too many connect at once")
		return false
	}
	s.Metrics.Strangers.Add(1)
	if victim != nil {
		s.Metrics.Strangers.Add(-1)
		s.Metrics.Displaced.Add(1)
		victim.shut(causeDisplaced, closeSlow, "gave way to another; connect in time")
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.closing.Load() {
		if s.strangers.remove(one) {
			s.Metrics.Strangers.Add(-1)
		}
		return true
	}
	if one.patience == nil {
		one.patience = time.AfterFunc(s.StrangerTimeout, func() {
			if !one.admitted.Load() {
				one.shut(causeStranger, closeSlow, "nothing valid came in time after connecting; reconnect")
			}
		})
	} else {
		one.patience.Reset(s.StrangerTimeout)
	}
	return true
}

// newID returns 144 random bits.
func newID() string {
	var raw [18]byte
	_, _ = rand.Read(raw[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// appendOpen appends the packet that tells a client about its session.
func (s *Session) appendOpen(dst []byte, upgrades []string) []byte {
	hello, _ := json.Marshal(struct {
		SID          string   `json:"sid"`
		Upgrades     []string `json:"upgrades"`
		PingInterval int64    `json:"pingInterval"`
		PingTimeout  int64    `json:"pingTimeout"`
		MaxPayload   int      `json:"maxPayload"`
	}{s.id, upgrades, s.srv.PingInterval.Milliseconds(), s.srv.PingTimeout.Milliseconds(), s.srv.MaxPayload}) // always marshals
	return append(append(dst, typeOpen), hello...)
}

// find returns the session of a request, held, if the request may stand for it.
func (s *Server) find(sid string, id access.Identity) (*Session, *answer) {
	s.mu.Lock()
	one := s.sessions[sid]
	s.mu.Unlock()
	if one == nil || one.overdue() && !one.lingering() {
		return nil, refuse(refusedSID, "This session is over. Open a new one.")
	}
	if one.opener.Kind != id.Kind || one.opener.Credential != id.Credential {
		return nil, refuse(refusedForbidden, "This session was opened with another credential.")
	}
	if !one.hold() {
		return nil, refuse(refusedSID, "This session is over. Open a new one.")
	}
	return one, nil
}

// lingering reports whether a session that is closing has last words for a poll.
func (s *Session) lingering() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.linger != nil
}

// ServeHTTP answers one request, or upgrades it and starts the connection.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		// Of a request that is refused net/http reads the body, and would wait for it. A server that cannot set deadlines has its own.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.WriteTimeout))
	}
	q := r.URL.Query()
	transport, sid := q.Get("transport"), q.Get("sid")
	switch {
	case transport != transportPolling && transport != transportWebSocket:
		s.refuse(w, r, refuse(refusedTransport, "Use transport=polling or transport=websocket."))
		return
	case q.Get("EIO") != "4":
		s.refuse(w, r, refuse(refusedVersion, "Use a client that speaks Engine.IO 4 (EIO=4), such as socket.io-client 3 or newer."))
		return
	case sid == "" && r.Method != http.MethodGet:
		s.refuse(w, r, refuse(refusedMethod, "A session is opened with GET."))
		return
	}
	id, err := s.Identify(r)
	if err != nil {
		s.refuse(w, r, refuseIdentity(err))
		return
	}
	var one *Session
	if sid != "" {
		var refused *answer
		if one, refused = s.find(sid, id); refused != nil {
			s.refuse(w, r, refused)
			return
		}
		if one.admitted.Load() {
			s.Admit(r)
		}
	}
	if transport == transportWebSocket {
		s.serveWebSocket(w, r, one, id)
		return
	}
	if one == nil {
		s.serveOpen(w, r, id)
		return
	}
	defer one.release()
	switch r.Method {
	case http.MethodGet:
		one.serveGet(w, r)
	case http.MethodPost:
		one.servePost(w, r)
	default:
		s.refuse(w, r, refuse(refusedRequest, "Use GET to receive and POST to send."))
	}
}
