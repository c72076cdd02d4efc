package broker

import (
	"bytes"
	"context"
	"slices"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hooks is how mochi asks. Every client but inner has a *conn under it, which was authenticated before.
type hooks struct {
	mqtt.HookBase
	b *Broker
}

// originRetained stands for the client that a message comes from where it is a retained one, which does not go through
// mochi's queue.
const originRetained = "$retained"

// replay is a filter for which retained messages are to be sent.
type replay struct {
	filter string
	id     int // of the subscription, 0 for none
	place  int // in the SUBSCRIBE
}

func (h *hooks) ID() string { return "hub" }

func (h *hooks) Provides(b byte) bool {
	return slices.Contains([]byte{
		mqtt.OnConnectAuthenticate, mqtt.OnConnect, mqtt.OnSessionEstablish, mqtt.OnSessionEstablished, mqtt.OnACLCheck,
		mqtt.OnPacketRead, mqtt.OnPacketEncode, mqtt.OnPacketProcessed, mqtt.OnSubscribe, mqtt.OnSubscribed,
		mqtt.OnPublish, mqtt.OnPublishDropped, mqtt.OnPacketIDExhausted, mqtt.OnQosPublish,
	}, b)
}

// connOf returns the connection that the client has or had, nil for inner.
func connOf(cl *mqtt.Client) *conn {
	c, _ := cl.Net.Conn.(*conn)
	return c
}

func (h *hooks) OnConnectAuthenticate(cl *mqtt.Client, _ packets.Packet) bool {
	return connOf(cl) != nil
}

func (h *hooks) OnConnect(cl *mqtt.Client, _ packets.Packet) error {
	cl.State.ServerKeepalive = connOf(cl).connack.keepalive
	return nil
}

// OnSessionEstablish puts what a session has not acknowledged in the order in which it was sent: mochi sends it again in
// the order of the lower half of Created, which here is a count.
func (h *hooks) OnSessionEstablish(cl *mqtt.Client, _ packets.Packet) {
	old, ok := h.b.server.Clients.Get(cl.ID)
	if !ok {
		return
	}
	c := connOf(cl)
	h.b.spread.Lock()
	c.takesUp = true
	all := old.State.Inflight.GetAll(false)
	slices.SortFunc(all, func(a, b packets.Packet) int { return int(a.Created - b.Created) })
	for i, pk := range all {
		pk.Created = int64(i)
		old.State.Inflight.Set(pk)
	}
	c.order.Store(int64(len(all)))
}

func (h *hooks) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	c := connOf(cl)
	c.settle()
	c.session.ids.prune(inflight(cl))
}

// settle gives Broker.spread back. Only the goroutine that reads may call it.
func (c *conn) settle() {
	if c.takesUp {
		c.takesUp = false
		c.b.spread.Unlock()
	}
	if c.spreads {
		c.spreads = false
		c.b.spread.RUnlock()
	}
}

// inflight tells which ids mochi has in use for the client.
func inflight(cl *mqtt.Client) func(uint16) bool {
	return func(id uint16) bool {
		_, ok := cl.State.Inflight.Get(id)
		return ok
	}
}

// OnACLCheck is asked before a message of a client is looked at, before a subscription, where OnSubscribe has decided, and
// before each message to a client.
func (h *hooks) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	c := connOf(cl)
	if write {
		if c.grant.publish(topic) {
			return true
		}
		h.b.Metrics.Denied.Add(1)
		h.b.limited.info("publication denied", "client", c.id, "who", c.grant.name(), "remote", c.remote())
		return false
	}
	inner, _ := splitShare(topic)
	if !c.grant.subscribe(inner) || !h.takes(cl, c) {
		return false
	}
	c.hand()
	return true
}

// takes reports whether there is room for one more message that the client must acknowledge. mochi would drop it silently.
func (h *hooks) takes(cl *mqtt.Client, c *conn) bool {
	if cl.State.Inflight.Len() < h.b.MaxInflight {
		return true
	}
	if !c.ended() {
		c.slow()
		return false
	}
	h.b.Metrics.Dropped.Add(1)
	h.b.spoil(c)
	return false
}

// spoil marks a session without a connection as one that lacks a message: it ends, so that the client will see that.
func (b *Broker) spoil(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := c.session; s.last == c {
		s.full = true
	}
}

func (h *hooks) OnPublishDropped(cl *mqtt.Client, _ packets.Packet) { connOf(cl).slow() }

func (h *hooks) OnPacketIDExhausted(cl *mqtt.Client, _ packets.Packet) { connOf(cl).slow() }

// OnQosPublish is called when a message waits for its acknowledgement.
func (h *hooks) OnQosPublish(cl *mqtt.Client, pk packets.Packet, _ int64, _ int) {
	c := connOf(cl)
	if pk.FixedHeader.Type != packets.Publish || pk.FixedHeader.Dup {
		return
	}
	c.session.ids.sent(pk.PacketID)
	pk.Created = c.order.Add(1)
	cl.State.Inflight.Set(pk)
	if !c.ended() {
		return
	}
	h.b.mu.Lock()
	s := c.session
	s.bytes += len(pk.TopicName) + len(pk.Payload)
	full := s.bytes > h.b.MaxOfflineBytes
	s.full = s.full || full && s.last == c
	h.b.mu.Unlock()
	if full {
		h.b.Metrics.Dropped.Add(1)
	}
}

// OnPacketRead gives the packets that the client numbers ids that do not meet mochi's own.
func (h *hooks) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	switch pk.FixedHeader.Type {
	case packets.Publish, packets.Pubrel, packets.Subscribe, packets.Unsubscribe:
		if pk.PacketID != 0 {
			pk.PacketID = connOf(cl).session.ids.enter(pk.PacketID, inflight(cl))
		}
	}
	return pk, nil
}

// OnPacketEncode completes what mochi sends.
func (h *hooks) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	c := connOf(cl)
	if c == nil {
		return pk
	}
	ids := &c.session.ids
	switch pk.FixedHeader.Type {
	case packets.Publish:
		h.b.Metrics.MessagesOut.Add(1)
		if pk.Origin != originRetained && !pk.FixedHeader.Dup {
			c.moved(1)
		}
	case packets.Connack:
		pk.Properties.MaximumPacketSize = uint32(h.b.MaxPacket)
		pk.Properties.AssignedClientID = c.connack.assigned
		if c.connack.expiry {
			pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = cl.Properties.Props.SessionExpiryInterval, true
		}
	case packets.Puback, packets.Suback, packets.Unsuback, packets.Pubcomp:
		pk.PacketID = ids.leave(pk.PacketID, true)
	case packets.Pubrec:
		if pk.ReasonCode == packets.ErrPacketIdentifierInUse.Code {
			// The client sends a message again that is here already, which is no error (MQTT-4.3.3-10).
			pk.ReasonCode, pk.Properties.ReasonString = 0, ""
		}
		pk.PacketID = ids.leave(pk.PacketID, pk.ReasonCode >= packets.ErrUnspecifiedError.Code)
	}
	return pk
}

// OnSubscribe decides about each filter. One that is refused is made one that mochi refuses, and OnSubscribed says why.
func (h *hooks) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	c := connOf(cl)
	c.verdicts, c.replays = c.verdicts[:0], c.replays[:0]
	subs := cl.State.Subscriptions
	fresh := map[string]bool{}
	for i := range pk.Filters {
		f := &pk.Filters[i]
		inner, shared := splitShare(f.Filter)
		_, had := subs.Get(f.Filter)
		had = had || fresh[f.Filter]
		var verdict byte
		switch {
		case !validFilter(f.Filter) || !validFilter(inner):
			verdict = codeFilter
		case !c.grant.subscribe(inner):
			verdict = codeNotAuthorized
		case shared && f.NoLocal:
			verdict = codeProtocol // MQTT-3.8.3-4
		case !had && subs.Len()+len(fresh) >= h.b.MaxSubscriptions:
			verdict = codeQuota
		}
		c.verdicts = append(c.verdicts, verdict)
		if verdict != 0 {
			h.b.Metrics.Denied.Add(1)
			h.b.limited.info("subscription denied", "client", c.id, "who", c.grant.name(), "remote", c.remote(), "code", verdict)
			f.Filter = ""
			continue
		}
		if !had {
			fresh[f.Filter] = true
		}
		if !shared && (f.RetainHandling == 0 || f.RetainHandling == 1 && !had) {
			c.replays = append(c.replays, replay{f.Filter, f.Identifier, i})
		}
		f.RetainHandling = 2
		if c.grant.local && !shared {
			f.NoLocal = true // the hub must not take its own messages for somebody else's
		}
	}
	return pk
}

func (h *hooks) OnSubscribed(cl *mqtt.Client, _ packets.Packet, codes []byte) {
	c := connOf(cl)
	for i, verdict := range c.verdicts {
		if verdict == 0 {
			c.moved(1) // OnACLCheck was asked for the subscription, not for a message
		} else if i < len(codes) {
			if codes[i] = verdict; !c.v5 {
				codes[i] = 0x80 // the only failure that MQTT 3.1.1 knows
			}
		}
	}
	c.replays = slices.DeleteFunc(c.replays, func(r replay) bool { return r.place >= len(codes) || codes[r.place] >= 0x80 })
	if slices.ContainsFunc(codes, func(code byte) bool { return code < 0x80 }) {
		h.b.noteReader(c)
	}
}

// OnPacketProcessed forgets the ids of what was not answered, and sends the retained messages after the SUBACK.
func (h *hooks) OnPacketProcessed(cl *mqtt.Client, pk packets.Packet, err error) {
	c := connOf(cl)
	if c == nil {
		return
	}
	c.settle()
	switch pk.FixedHeader.Type {
	case packets.Publish, packets.Pubrel, packets.Subscribe, packets.Unsubscribe:
		if !inflight(cl)(pk.PacketID) {
			c.session.ids.leave(pk.PacketID, true)
		}
	}
	if pk.FixedHeader.Type != packets.Subscribe || err != nil {
		return
	}
	for _, r := range c.replays {
		for _, topic := range h.b.retained.matching(r.filter) {
			if !h.replay(cl, c, topic, r.id) {
				return
			}
		}
	}
}

// replay sends a retained message, with QoS 0: there may be more than may be unacknowledged, and who misses one because
// the connection broke gets it again. If it was changed meanwhile, the client may have got the change first: then the
// change is sent once more.
func (h *hooks) replay(cl *mqtt.Client, c *conn, topic string, id int) bool {
	payload := h.b.retained.payload(topic)
	if len(payload) == 0 {
		return true
	}
	for {
		if !c.waitRoom() {
			return false
		}
		pk := packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Publish, Retain: true}, TopicName: topic, Payload: payload,
			Origin: originRetained,
		}
		if id > 0 {
			pk.Properties.SubscriptionIdentifier = []int{id}
		}
		if err := cl.WritePacket(pk); err != nil {
			return !c.ended() // one that is larger than the client takes is left out (MQTT-3.1.2-25)
		}
		now := h.b.retained.payload(topic)
		if bytes.Equal(now, payload) {
			return true
		}
		payload = now
	}
}

// OnPublish is called before a message is acknowledged and distributed.
func (h *hooks) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connOf(cl)
	if c != nil && c.grant.ingests() {
		ctx, cancel := context.WithTimeout(c.ctx, h.b.IngestTimeout)
		defer cancel()
		if err := h.b.store(ctx, c, pk.TopicName, pk.Payload); err != nil {
			// Any other error mochi acknowledges. The closed connection makes the device send it again.
			c.end(cutIngest, codeBusy)
			return pk, packets.ErrRejectPacket
		}
		return pk, packets.CodeSuccessIgnore
	}
	if c != nil {
		h.b.spread.RLock()
		c.spreads = true
	}
	if pk.FixedHeader.Retain {
		if !h.b.retained.set(pk.TopicName, pk.Payload) {
			h.b.limited.info("a message is not retained: the limit on retained messages is reached", "bytes", len(pk.Payload))
		}
		h.b.Metrics.Retained.Store(int64(h.b.retained.len()))
	}
	return pk, nil
}
