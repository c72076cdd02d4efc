package broker

import (
	"context"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// session is what belongs to a client id, as long as there is a connection or the client wants to come back. Its fields
// are guarded by Broker.mu, except where it says otherwise.
type session struct {
	id    string
	owner owner
	conn  *conn // nil without a connection
	last  *conn // of the connection that there is or was
	done  chan struct{}
	ids   idMap // of the goroutine that reads from the client
	stop  func()
	reads bool // has subscribed to what the hub publishes; stays so

	// Without a connection.
	client *mqtt.Client
	until  time.Time // when it is given up; on the monotonic clock
	full   bool      // a message could not be kept
	bytes  int       // kept since it is without a connection
	will   *will     // waits for its delay
	willAt time.Time
}

// claim makes the connection that of its client id. Another connection of the same owner is ended and waited for first,
// so that mochi never sees two at a time; one of another owner has precedence, and so has its session.
func (b *Broker) claim(c *conn) (refusal, *violation) {
	for {
		b.mu.Lock()
		s := b.sessions[c.id]
		switch {
		case b.stopping:
			b.mu.Unlock()
			return refusedStopping, &violation{codeShuttingDown, "the hub stops"}
		case s != nil && s.owner != c.grant.owner():
			b.mu.Unlock()
			return refusedClientID, &violation{codeClientID,
				"another token uses the client id, or has a session of it: choose another client id, or revoke that token"}
		case (s == nil || s.conn == nil) && b.open >= b.MaxConns && !c.grant.local:
			b.mu.Unlock()
			return refusedFull, &violation{codeBusy, "too many connections"}
		case s == nil:
			s = &session{id: c.id, owner: c.grant.owner(), stop: func() {}}
			b.sessions[c.id] = s
			fallthrough
		case s.conn == nil:
			b.countOfflineLocked(s, nil)
			s.conn, s.last, s.done, s.will, s.bytes, s.full = c, c, make(chan struct{}), nil, 0, false
			c.session = s
			b.countOpenLocked(c, 1)
			b.mu.Unlock()
			return 0, nil
		}
		old, done := s.conn, s.done
		b.mu.Unlock()
		old.end(cutTaken, codeTakenOver)
		select {
		case <-done:
		case <-time.After(b.CloseTimeout + b.IngestTimeout):
			return refusedClientID, &violation{codeBusy, "the connection before does not end"}
		case <-c.ctx.Done():
			return refusedStopping, &violation{codeShuttingDown, "the hub stops"}
		}
	}
}

// detach takes the connection, whose life is over, from its session, which ends too unless the client wanted it kept.
// stop ends the watch of its identity.
func (b *Broker) detach(c *conn, stop func()) {
	why := c.why
	if why == cutLost && c.left {
		why = cutLeft
	}
	b.Metrics.cut[why].Add(1)
	b.Logger.Debug("client gone", "client", c.id, "who", c.grant.name(), "reason", cuts[why])
	w, client := c.will, b.kept(c)
	if c.left || why == cutStopping || why == cutRevoked {
		w = nil
	}
	if w != nil && (w.delay == 0 || client == nil) {
		b.publishWill(c, w) // before the next connection of the client id, which waits for done
		w = nil
	}
	now := time.Now()
	b.mu.Lock()
	s := c.session
	before := s.stop
	s.conn, s.stop = nil, stop
	b.countOpenLocked(c, -1)
	b.countOfflineLocked(s, client)
	if client == nil {
		b.dropLocked(s)
	} else {
		s.until = now.Add(b.expiry(c, client))
		if w != nil {
			s.will, s.willAt = w, now.Add(w.delay)
		}
	}
	close(s.done)
	oldest := b.crowdedLocked()
	b.mu.Unlock()
	before()
	if oldest != nil {
		b.publishWill(oldest.last, oldest.will)
	}
}

// countOpenLocked counts a connection from the network: the hub's own have no limit.
func (b *Broker) countOpenLocked(c *conn, n int) {
	if !c.grant.local {
		b.open += n
	}
}

// expiry returns for how long the client wants its session to be kept, and may.
func (b *Broker) expiry(c *conn, cl *mqtt.Client) time.Duration {
	switch {
	case c.v5:
		return min(b.SessionExpiry, time.Duration(cl.Properties.Props.SessionExpiryInterval)*time.Second)
	case cl.Properties.Clean:
		return 0
	}
	return b.SessionExpiry
}

// kept returns mochi's side of the session if it is to outlive the connection.
func (b *Broker) kept(c *conn) *mqtt.Client {
	cl, ok := b.server.Clients.Get(c.id)
	if !ok || cl.Net.Conn != c || b.expiry(c, cl) == 0 {
		return nil
	}
	return cl
}

// countOfflineLocked changes what a session without a connection has in mochi.
func (b *Broker) countOfflineLocked(s *session, client *mqtt.Client) {
	was := s.client != nil
	s.client = client
	switch is := client != nil; {
	case is && !was:
		b.offline++
		b.Metrics.Offline.Add(1)
	case was && !is:
		b.offline--
		b.Metrics.Offline.Add(-1)
	}
}

// dropLocked ends a session without a connection. mochi forgets it with its subscriptions, which it would not by itself.
func (b *Broker) dropLocked(s *session) {
	delete(b.sessions, s.id)
	b.countOfflineLocked(s, nil)
	if s.reads {
		b.readers--
	}
	if cl, ok := b.server.Clients.Get(s.id); ok {
		b.server.UnsubscribeClient(cl)
		cl.ClearInflights()
		b.server.Clients.Delete(s.id)
	}
	s.stop()
}

// noteReader remembers that the client has subscribed to what the hub publishes. Devices get commands only.
func (b *Broker) noteReader(c *conn) {
	if c.grant.local || c.grant.ingests() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.session.reads {
		return
	}
	c.session.reads = true
	if b.readers++; b.readers == 1 {
		close(b.wanted)
		b.wanted = make(chan struct{})
	}
}

// Wanted reports whether anybody has subscribed to what the hub publishes. If not, the channel is closed when somebody does,
// before that one is told so.
func (b *Broker) Wanted() (bool, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.readers > 0, b.wanted
}

// crowdedLocked ends the session without a connection that would end first, and returns it, if there are too many.
func (b *Broker) crowdedLocked() *session {
	if b.offline <= b.MaxOffline {
		return nil
	}
	var oldest *session
	for _, s := range b.sessions {
		if s.client != nil && (oldest == nil || s.until.Before(oldest.until)) {
			oldest = s
		}
	}
	b.dropLocked(oldest)
	return oldest
}

// sweepEvery is how late a session may end or a will be published.
const sweepEvery = time.Second

func (b *Broker) sweepUntil(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.sweep(time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// sweep ends the sessions that nobody may or wants to come back to, and publishes the wills whose delay is over.
func (b *Broker) sweep(now time.Time) {
	type due struct {
		c *conn
		w *will
	}
	var wills []due
	b.mu.Lock()
	for _, s := range b.sessions {
		if s.client == nil {
			continue
		}
		over := s.full || s.last.revoked.Load() || !now.Before(s.until)
		if s.will != nil && (over || !now.Before(s.willAt)) {
			wills = append(wills, due{s.last, s.will})
			s.will = nil
		}
		if over {
			b.dropLocked(s)
		}
	}
	b.mu.Unlock()
	for _, d := range wills {
		b.publishWill(d.c, d.w)
	}
}

// publishWill publishes what a client left for when it is gone. It was checked at CONNECT.
func (b *Broker) publishWill(c *conn, w *will) {
	if w == nil || c.revoked.Load() {
		return
	}
	b.Metrics.Wills.Add(1)
	if c.grant.ingests() {
		// There is nobody left to acknowledge to: what cannot be stored now is lost, and counted.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), b.IngestTimeout)
		defer cancel()
		_ = b.store(ctx, c, w.topic, w.payload)
		return
	}
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: w.qos, Retain: w.retain},
		TopicName:   w.topic, Payload: w.payload, Properties: packets.Properties{User: w.user},
	}
	if w.qos > 0 {
		pk.PacketID = 1 // mochi wants one and does not use it
	}
	b.spread.RLock()
	defer b.spread.RUnlock()
	if err := b.server.InjectPacket(b.inner, pk); err != nil {
		b.Logger.Warn("a will was not published", "client", c.id, "err", err)
	}
}
