package broker

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"math"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"telemetryhub/hub/access"
)

// hello is a CONNECT that was found good.
type hello struct {
	*connect
	grant grant
}

// serve lives as long as a connection.
func (b *Broker) serve(ctx context.Context, raw net.Conn, local bool) {
	defer raw.Close()
	leave := b.strangers.add(raw)
	if leave == nil {
		b.Metrics.refused[refusedStopping].Add(1)
		return
	}
	h, r := b.greet(ctx, raw, local)
	if !leave() || h == nil {
		return
	}
	_ = raw.SetDeadline(time.Time{}) // or the connection is broken, which shows at once
	c := b.newConn(ctx, raw, r, h)
	defer c.cancel()
	if why, bad := b.claim(c); bad != nil {
		b.refuse(raw, h.connect, why, bad, h.grant.name())
		return
	}
	b.Metrics.Open.Add(1)
	b.Metrics.Accepted.Add(1)
	b.Logger.Debug("client connected", "client", c.id, "who", c.grant.name(), "remote", c.remote())
	stop := b.watch(c)
	go c.writeLoop()
	b.run(c)
	<-c.done
	b.detach(c, stop)
	b.Metrics.Open.Add(-1)
}

// run lets mochi serve the connection until it ends. A panic, which check is there to prevent, ends this connection only.
func (b *Broker) run(c *conn) {
	defer c.end(cutLost, 0)
	defer c.settle()
	defer func() {
		if p := recover(); p != nil {
			b.Metrics.Panics.Add(1)
			b.Logger.Error("serving an MQTT client panicked; please report it", "client", c.id, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	_ = b.server.EstablishConnection("hub", c) // why it ended, c knows
}

// greet makes the TLS handshake, reads CONNECT and decides about it, all within ConnectTimeout. It returns nil if the
// connection was refused.
func (b *Broker) greet(ctx context.Context, raw net.Conn, local bool) (*hello, *bufio.Reader) {
	if err := raw.SetDeadline(time.Now().Add(b.ConnectTimeout)); err != nil {
		return nil, nil
	}
	if t, ok := raw.(*tls.Conn); ok {
		if err := t.HandshakeContext(ctx); err != nil {
			b.refuse(raw, nil, refusedHandshake, malformed("the TLS handshake failed"), "")
			return nil, nil
		}
	}
	r := bufio.NewReaderSize(raw, 1024)
	packet, head, err := readPacket(r, nil, maxConnect)
	var bad *violation
	if err != nil {
		switch {
		case errors.As(err, &bad):
			b.refuse(raw, nil, refusedPacket, bad, "")
		case errors.Is(err, os.ErrDeadlineExceeded):
			b.refuse(raw, nil, refusedTimeout, malformed("no CONNECT in time"), "")
		}
		return nil, nil
	}
	b.Metrics.BytesIn.Add(uint64(len(packet)))
	req, bad := parseConnect(packet, head)
	if bad != nil {
		b.refuse(raw, req, refusedPacket, bad, "")
		return nil, nil
	}
	g, why, bad := b.admit(req, local)
	if bad != nil {
		b.refuse(raw, req, why, bad, g.name())
		return nil, nil
	}
	req.password = ""
	return &hello{req, g}, r
}

// admit decides whether a client may connect, as whom, and with which client id.
func (b *Broker) admit(req *connect, local bool) (grant, refusal, *violation) {
	g := grant{local: local}
	if !local {
		if req.password == "" {
			return g, refusedIdentity, &violation{codePassword, "no password: give a token as the password"}
		}
		id, err := b.Auth.Authenticate(req.password)
		if err != nil {
			return g, refusedIdentity, &violation{codePassword, authText(err)}
		}
		g.id = id
	}
	if !g.connect() {
		return g, refusedForbidden, &violation{codeNotAuthorized, "the token is for something else: use a device token or an API token"}
	}
	if bad := req.checkClientID(); bad != nil {
		return g, refusedClientID, bad
	}
	if !local && g.id.Kind == access.KindDevice && req.clientID != string(g.id.Device) {
		return g, refusedClientID, &violation{codeClientID, "the client id of a device must be its device id"}
	}
	if w := req.will; w != nil {
		switch {
		case w.retain && !local:
			return g, refusedWill, &violation{codeRetain, "a will that is to be retained, which only the hub may publish"}
		case !g.publish(w.topic):
			return g, refusedWill, &violation{codeNotAuthorized, "a will on a topic that the client may not publish to"}
		}
	}
	return g, 0, nil
}

// authText returns a text for the log. The errors of access are known not to hold the token; others may.
func authText(err error) string {
	for _, known := range []error{access.ErrNotToken, access.ErrUnknownToken, access.ErrExpired} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "the token could not be checked"
}

// refuse answers a connection that is not let in, if it has asked for anything, and writes down why.
func (b *Broker) refuse(raw net.Conn, req *connect, why refusal, bad *violation, who string) {
	b.Metrics.refused[why].Add(1)
	b.limited.info("connection refused", "reason", bad.text, "remote", raw.RemoteAddr().String(), "who", who)
	if req == nil {
		return
	}
	if raw.SetWriteDeadline(time.Now().Add(b.CloseTimeout)) == nil {
		_, _ = raw.Write(req.refusal(bad.code)) // it is closed in any case
	}
}

// newConn returns the connection as mochi will see it, beginning with a CONNECT of ours.
func (b *Broker) newConn(ctx context.Context, raw net.Conn, r *bufio.Reader, h *hello) *conn {
	c := &conn{
		b: b, raw: raw, r: r, grant: h.grant, id: h.clientID, v5: h.v5, will: h.will,
		keepalive: time.Duration(h.keepalive) * time.Second,
		wake:      make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.fewer = sync.NewCond(&c.mu)
	if h.receive < math.MaxUint16 {
		c.flow.max, c.flow.sent = int(h.receive), make(map[uint16]struct{})
	}
	if h.clientID == "" {
		c.id = "auto-" + rand.Text()
		c.connack.assigned = c.id
	}
	if h.grant.local {
		c.id = "$hub/" + c.id
	}
	if c.keepalive == 0 || c.keepalive > b.MaxKeepAlive {
		c.keepalive, c.connack.keepalive = b.MaxKeepAlive, true
	}
	if most := uint32(b.SessionExpiry / time.Second); h.expiry > most {
		h.expiry, c.connack.expiry = most, true
	}
	c.rest = h.encode(c.id, uint16(c.keepalive/time.Second))
	return c
}

// watch ends the connection, and later its session, as soon as the identity is no longer what it was.
func (b *Broker) watch(c *conn) (stop func()) {
	if c.grant.local {
		return func() {}
	}
	return b.Auth.Watch(c.grant.id, func(why access.Reason) {
		c.revoked.Store(true)
		b.limited.info("connection ended", "reason", "the token is no longer what it was: "+string(why), "client", c.id,
			"who", c.grant.name(), "remote", c.remote())
		c.end(cutRevoked, codeNotAuthorized)
	})
}
