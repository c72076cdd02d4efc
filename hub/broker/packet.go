package broker

import (
	"bufio"
	"io"
	"slices"
	"strings"
)

// Limits of topics: a filter, too, has at most so many bytes and levels.
const (
	maxTopicBytes  = 256
	maxTopicLevels = 16
)

// maxClientID is the longest client id in bytes. A server must take 23 (MQTT-3.1.3-5).
const maxClientID = 128

// step is how much of a packet is made room for before its bytes are there.
const step = 4096

// readPacket appends the next packet to buf[:0] and returns it with the length of its fixed header. Nothing that a peer
// announces makes it allocate: room is made as the bytes arrive. The error is a *violation or what r returned.
func readPacket(r *bufio.Reader, buf []byte, limit int) (packet []byte, head int, err error) {
	buf = buf[:0]
	var size, shift int
	for {
		b, err := r.ReadByte()
		if err != nil {
			return nil, 0, err
		}
		buf = append(buf, b)
		if len(buf) == 1 {
			continue
		}
		if len(buf) > 5 || len(buf) == 5 && b&0x80 != 0 {
			return nil, 0, malformed("a packet length of more than four bytes")
		}
		size |= int(b&0x7f) << shift
		shift += 7
		if b&0x80 == 0 {
			break
		}
	}
	head = len(buf)
	if head+size > limit {
		return nil, 0, &violation{codeTooLarge, "a packet that is too large"}
	}
	for total := head + size; len(buf) < total; {
		have := len(buf)
		n := min(total-have, max(step, have))
		buf = slices.Grow(buf, n)[:have+n]
		if _, err := io.ReadFull(r, buf[have:]); err != nil {
			return nil, 0, err
		}
	}
	return buf, head, nil
}

// check returns nil if a packet after CONNECT is well formed and one that a client may send. What passes makes mochi
// neither panic nor read beyond it.
func check(packet []byte, head int, v5 bool) *violation {
	kind, flags := packet[0]>>4, packet[0]&0x0f
	c := &cursor{b: packet[head:]}
	switch kind {
	case typePublish:
		return checkPublish(c, flags, v5)
	case typePubrel, typeSubscribe, typeUnsubscribe:
		if flags != 2 {
			return malformed("the flags of a packet are wrong")
		}
	default:
		if flags != 0 {
			return malformed("the flags of a packet are wrong")
		}
	}
	switch kind {
	case typePuback, typePubrec, typePubrel, typePubcomp:
		checkAck(c, kind, v5)
	case typeSubscribe:
		checkSubscribe(c, v5)
	case typeUnsubscribe:
		checkUnsubscribe(c, v5)
	case typePingreq:
	case typeDisconnect:
		checkDisconnect(c, v5)
	case typeConnect:
		return &violation{codeProtocol, "a second CONNECT"}
	default:
		return &violation{codeProtocol, "a packet that clients do not send, or that was not agreed on"}
	}
	if c.bad == nil && len(c.b) > 0 {
		return malformed("a packet is longer than what is in it")
	}
	return c.bad
}

func checkPublish(c *cursor, flags byte, v5 bool) *violation {
	qos := flags >> 1 & 3
	if qos == 3 || qos == 0 && flags&8 != 0 {
		return malformed("the flags of a PUBLISH are wrong")
	}
	topic := c.text()
	if qos > 0 && c.uint16() == 0 && c.bad == nil {
		return &violation{codeProtocol, "a packet id of 0"}
	}
	alias := false
	if v5 {
		c.properties(typePublish, func(p property) { alias = alias || p.id == propTopicAlias })
	}
	switch {
	case c.bad != nil:
		return c.bad
	case alias:
		return &violation{codeAlias, "a topic alias, of which none were agreed on"}
	case !validTopic(topic):
		return &violation{codeTopic, "a topic that is empty, too long or too deep, or has a character that it must not have"}
	}
	return nil
}

func checkAck(c *cursor, kind byte, v5 bool) {
	if c.uint16() == 0 {
		c.fail("a packet id of 0")
	}
	if v5 && len(c.b) > 0 {
		c.byte()
		if len(c.b) > 0 {
			c.properties(kind, nil)
		}
	}
}

func checkSubscribe(c *cursor, v5 bool) {
	if c.uint16() == 0 {
		c.fail("a packet id of 0")
	}
	if v5 {
		c.properties(typeSubscribe, func(p property) {
			if p.id == propSubscriptionID && p.n == 0 {
				c.fail("a subscription id of 0")
			}
		})
	}
	for n := 0; c.bad == nil && (n == 0 || len(c.b) > 0); n++ {
		c.text()
		options := c.byte()
		reserved := byte(0xfc)
		if v5 {
			reserved = 0xc0
		}
		if options&reserved != 0 || options&3 == 3 || options&0x30 == 0x30 {
			c.fail("the options of a subscription are wrong")
		}
		if n >= maxFilters {
			c.fail("too many filters in one packet")
		}
	}
}

func checkUnsubscribe(c *cursor, v5 bool) {
	if c.uint16() == 0 {
		c.fail("a packet id of 0")
	}
	if v5 {
		c.properties(typeUnsubscribe, nil)
	}
	for n := 0; c.bad == nil && (n == 0 || len(c.b) > 0); n++ {
		if f := c.text(); c.bad == nil && (f == "" || len(f) > maxTopicBytes) || n >= maxFilters {
			c.fail("a filter that is empty or too long, or too many filters in one packet")
		}
	}
}

func checkDisconnect(c *cursor, v5 bool) {
	if v5 && len(c.b) > 0 {
		c.byte()
		if len(c.b) > 0 {
			c.properties(typeDisconnect, nil)
		}
	}
}

// maxFilters is the most filters in one packet.
const maxFilters = 256

// validTopic reports whether messages can be published to the topic. Those that begin with a dollar sign are for servers
// (MQTT 5 section 4.7.2).
func validTopic(topic string) bool {
	return !strings.ContainsAny(topic, "+#") && validFilter(topic) && topic[0] != '$'
}

// validFilter reports whether the filter is within the limits and its wildcards stand where they may
// (MQTT-4.7.1-1, MQTT-4.7.1-2).
func validFilter(filter string) bool {
	if filter == "" || len(filter) > maxTopicBytes || strings.ContainsAny(filter, "\x00\uffff") {
		return false
	}
	levels := strings.Split(filter, "/")
	if len(levels) > maxTopicLevels {
		return false
	}
	for i, l := range levels {
		if strings.ContainsAny(l, "+#") && l != "+" && (l != "#" || i != len(levels)-1) {
			return false
		}
	}
	return true
}

// matches reports whether a valid filter without a share matches the topic. A wildcard at the beginning matches no topic
// that begins with a dollar sign (MQTT-4.7.2-1).
func matches(filter, topic string) bool {
	if topic[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	for {
		f, restF, moreF := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, restT, moreT := strings.Cut(topic, "/")
		switch {
		case f != "+" && f != t:
			return false
		case !moreT:
			return !moreF || restF == "#"
		case !moreF:
			return false
		}
		filter, topic = restF, restT
	}
}
