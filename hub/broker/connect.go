package broker

import (
	"bytes"
	"math"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// connect is what a CONNECT says. The password is in no other place once the identity is known.
type connect struct {
	v5        bool
	clean     bool
	keepalive uint16
	clientID  string
	password  string
	will      *will

	expiry      uint32 // session expiry interval in seconds
	receive     uint32 // how many unacknowledged messages the client takes
	maxPacket   uint32 // largest packet that the client takes; 0 means any
	problemInfo bool   // whether the client wants reason strings
}

// will is a message that is published for a client that went away without saying so.
type will struct {
	topic   string
	payload []byte
	qos     byte
	retain  bool
	user    []packets.UserProperty
	delay   time.Duration
}

// parseConnect reads the first packet of a connection. If it is a CONNECT whose version is known, the result says at
// least that, so that it can be answered.
func parseConnect(packet []byte, head int) (*connect, *violation) {
	if packet[0] != typeConnect<<4 {
		return nil, &violation{codeProtocol, "the first packet is no CONNECT"}
	}
	c := &cursor{b: packet[head:]}
	name, level, flags := string(c.binary()), c.byte(), c.byte()
	if c.bad != nil {
		return nil, c.bad
	}
	if name != "MQTT" || level != 4 && level != 5 {
		return &connect{}, &violation{codeVersion, "neither MQTT 3.1.1 nor MQTT 5"}
	}
	r := &connect{v5: level == 5, clean: flags&2 != 0, keepalive: c.uint16(), receive: math.MaxUint16, problemInfo: true}
	hasWill, qos := flags&4 != 0, flags>>3&3
	switch {
	case flags&1 != 0, qos == 3, !hasWill && (qos != 0 || flags&0x20 != 0):
		return r, malformed("the flags of a CONNECT are wrong")
	case !r.v5 && flags&0xC0 == 0x40:
		return r, malformed("a password without a user name, which MQTT 3.1.1 does not allow") // MQTT-3.1.2-22
	}
	if r.v5 {
		r.properties(c)
	}
	r.clientID = c.text()
	if hasWill {
		r.will = c.will(r.v5)
		r.will.qos, r.will.retain = qos, flags&0x20 != 0
	}
	if flags&0x80 != 0 {
		c.text() // the user name says nothing: the password is a token, which knows whose it is
	}
	if flags&0x40 != 0 {
		r.password = string(c.binary())
	}
	if c.bad == nil && len(c.b) > 0 {
		c.fail("a CONNECT is longer than what is in it")
	}
	return r, c.bad
}

func (r *connect) properties(c *cursor) {
	var bad *violation
	c.properties(typeConnect, func(p property) {
		switch p.id {
		case propSessionExpiry:
			r.expiry = p.n
		case propReceiveMaximum:
			r.receive = p.n
		case propMaxPacket:
			r.maxPacket = p.n
		case propProblemInfo:
			r.problemInfo = p.n == 1
		case propAuthMethod:
			bad = &violation{codeAuthMethod, "an authentication method: give a token as the password instead"}
		}
		if p.n == 0 && (p.id == propReceiveMaximum || p.id == propMaxPacket) {
			bad = &violation{codeProtocol, "a limit of 0 in a CONNECT"}
		}
	})
	if c.bad == nil && bad != nil {
		c.bad, c.b = bad, nil
	}
}

func (c *cursor) will(v5 bool) *will {
	w := new(will)
	if v5 {
		c.properties(willProperties, func(p property) {
			switch p.id {
			case propWillDelay:
				w.delay = time.Duration(p.n) * time.Second
			case propUser:
				w.user = append(w.user, packets.UserProperty{Key: p.key, Val: p.text})
			}
		})
	}
	w.topic, w.payload = c.text(), bytes.Clone(c.binary())
	if c.bad == nil && !validTopic(w.topic) {
		c.bad, c.b = &violation{codeTopic, "the topic of a will is not valid"}, nil
	}
	return w
}

// checkClientID returns nil if the client id can be used. Those that begin with a dollar sign are the hub's own.
func (r *connect) checkClientID() *violation {
	switch {
	case r.clientID == "" && !r.v5 && !r.clean:
		return &violation{codeClientID, "no client id, but a session that is to be kept"} // MQTT-3.1.3-8
	case len(r.clientID) > maxClientID, strings.HasPrefix(r.clientID, "$"),
		strings.ContainsFunc(r.clientID, func(c rune) bool { return c < ' ' || c >= 0x7f && c < 0xa0 || c == 0xffff }):
		return &violation{codeClientID, "a client id that is too long, begins with $ or has a control character in it"}
	}
	return nil
}

// encode returns the CONNECT that mochi sees: without password, user name and will, of which it does not take the care
// that they need, and without what its flow control and its topic aliases would do (see hooks.go).
func (r *connect) encode(id string, keepalive uint16) []byte {
	level := byte(4)
	if r.v5 {
		level = 5
	}
	pk := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Connect},
		ProtocolVersion: level,
		Connect: packets.ConnectParams{
			ProtocolName: []byte("MQTT"), ClientIdentifier: id, Clean: r.clean, Keepalive: keepalive,
		},
		Properties: packets.Properties{
			SessionExpiryInterval: r.expiry, SessionExpiryIntervalFlag: r.v5,
			MaximumPacketSize: r.maxPacket, RequestProblemInfoFlag: true,
		},
	}
	if r.problemInfo {
		pk.Properties.RequestProblemInfo = 1
	}
	var buf bytes.Buffer
	_ = pk.ConnectEncode(&buf) // it has no error to return
	return buf.Bytes()
}

// connackCodes maps reason codes to the return codes of MQTT 3.1.1 section 3.2.2.3. What is not there is "server
// unavailable".
var connackCodes = map[byte]byte{
	codeVersion: 1, codeClientID: 2, codePassword: 5, codeNotAuthorized: 5, codeRetain: 5, codeTopic: 5, codeAuthMethod: 5,
}

// refusal returns the CONNACK that refuses a connection.
func (r *connect) refusal(code byte) []byte {
	if r.v5 {
		return []byte{0x20, 3, 0, code, 0}
	}
	old, ok := connackCodes[code]
	if !ok {
		old = 3
	}
	return []byte{0x20, 2, 0, old}
}
