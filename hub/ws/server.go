package ws

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub/access"
	"telemetryhub/hub/alarm"
	"telemetryhub/hub/crew"
	"telemetryhub/hub/frames"
)

// server is what devices and viewers have in common: who may connect, and which connections there are.
type server struct {
	Options
	maxFrame int
	auth     Auth
	may      func(access.Identity) *refusedError // whether it may connect here
	begin    beginning
	deflates bool // clients may have messages compressed
	limit    *limiter
	clock    *alarm.Clock
	rules    crew.Rules
	upgrader *frames.Upgrader

	mu       sync.Mutex // guards the fields below
	conns    map[*conn]struct{}
	places   int  // connections and upgrades under way
	draining bool // nobody new
	stopping bool // Shutdown waits
	empty    chan struct{}
}

func newServer(auth Auth, o Options, maxFrame, buffer int) (*server, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	s := &server{
		Options: o, maxFrame: maxFrame, auth: auth, limit: newLimiter(o.Connects, o.SourceConnects), clock: alarm.New(),
		conns: make(map[*conn]struct{}), empty: make(chan struct{}),
	}
	s.rules = crew.Rules{Crew: o.Crew, WriteTimeout: o.WriteTimeout, CloseTimeout: o.CloseTimeout, Written: &o.Metrics.BytesOut}
	s.upgrader = frames.NewUpgrader(maxFrame, buffer, wire.SubprotocolCBOR, wire.SubprotocolJSON)
	return s, nil
}

func (s *server) now() time.Duration { return s.clock.Now() }

// together rounds the time of a ping up to a moment that many share.
func (s *server) together(at time.Duration) time.Duration { return alarm.Later(at, s.Ping) }

// spread returns a random time from half of d to d.
func spread(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// Drain makes the server refuse upgrades from now on, with 503 and Retry-After. Connections go on.
func (s *server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return
	}
	s.draining = true
	if s.places == 0 {
		close(s.empty)
	}
}

// Shutdown drains the server and returns when no connection is left. It closes those that have said nothing valid yet; the
// others the hub must end, which also tells them when to come back. When ctx ends, what is left is cut, and Shutdown returns
// an error that says how many there were once they are gone, which takes CloseTimeout at most.
func (s *server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.mu.Lock()
	s.stopping = true
	for c := range s.conns {
		if !c.greeted.Load() {
			c.Close(wire.CloseDraining, wire.CloseDraining.Reason())
		}
	}
	s.mu.Unlock()
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	cut := len(s.conns)
	for c := range s.conns {
		c.Close(wire.CloseDraining, wire.CloseDraining.Reason())
		c.Kill()
	}
	s.mu.Unlock()
	<-s.empty
	return fmt.Errorf("stop in order: %w: %d connections were cut", context.Cause(ctx), cut)
}

// enter takes a place for an upgrade. Whoever got one gives it back by leave.
func (s *server) enter() *refusedError {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return refuseFor(refusedDraining, http.StatusServiceUnavailable, "The hub is stopping. Come again later.", retryAfter())
	case s.places >= s.MaxConns:
		return refuseFor(refusedFull, http.StatusServiceUnavailable,
			"There are too many connections. Come again later.", retryAfter())
	}
	s.places++
	return nil
}

func (s *server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places--
	if s.draining && s.places == 0 {
		close(s.empty)
	}
}

// add makes the connection known, and ends it if Shutdown was called during its upgrade.
func (s *server) add(c *conn) {
	s.Metrics.Open.Add(1)
	s.Metrics.Accepted.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	if s.stopping {
		c.Close(wire.CloseDraining, wire.CloseDraining.Reason())
	}
}

// drop forgets the connection, whose life is over.
func (s *server) drop(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.Metrics.Open.Add(-1)
	s.leave()
}

// admit decides about a request to upgrade, cheap checks first. Nobody whose credential was not looked at takes a place or
// counts against the rate of all.
func (s *server) admit(r *http.Request) (offer, access.Identity, *refusedError) {
	var nobody access.Identity
	now := time.Now()
	if !s.limit.allowSource(s.Source(r), now) {
		return offer{}, nobody, tooOften()
	}
	o, refused := readOffer(r)
	if refused != nil {
		return offer{}, nobody, refused
	}
	id, err := s.auth.Authenticate(r)
	if err != nil {
		return offer{}, nobody, authRefusal(err)
	}
	if refused := s.may(id); refused != nil {
		return offer{}, nobody, refused
	}
	if !s.limit.allow(now) {
		return offer{}, nobody, tooOften()
	}
	return o, id, nil
}

func tooOften() *refusedError {
	return refuseFor(refusedRate, http.StatusServiceUnavailable, "Too many connect at once. Come again later.", retryAfter())
}

// ServeHTTP upgrades the request and starts the connection, or answers why not with a problem document.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o, id, refused := s.admit(r)
	if refused == nil {
		refused = s.enter()
	}
	if refused != nil {
		s.refuse(w, r, refused)
		return
	}
	raw, early, err := crew.Hijack(w)
	if err != nil {
		s.leave()
		refused = refuse(refusedInternal, http.StatusInternalServerError, "The hub cannot open a WebSocket here.")
		refused.cause = err
		s.refuse(w, r, refused)
		return
	}
	c := s.newConn(raw, early)
	c.name = id.Name()
	deflate := ""
	if s.deflates {
		deflate = frames.AnswerDeflate(r)
	}
	if err := s.upgrader.Open(&c.Conn, o.key, o.protocol, deflate); err != nil {
		c.Kill()
		s.leave()
		s.Logger.Debug("the client left during the upgrade", "remote", r.RemoteAddr, "err", err)
		return
	}
	s.add(c)
	c.start(id, o.format)
}

func (s *server) refuse(w http.ResponseWriter, r *http.Request, e *refusedError) {
	s.Metrics.refused[e.why].Add(1)
	level := slog.LevelDebug
	switch e.why {
	case refusedIdentity, refusedForbidden:
		level = slog.LevelInfo
	case refusedInternal:
		level = slog.LevelError
	}
	s.Logger.Log(r.Context(), level, "upgrade refused", "reason", refusals[e.why], "remote", r.RemoteAddr, "err", e.cause)
	e.write(w)
}
