package broker

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// Packet types, MQTT 5 section 2.1.2.
const (
	typeConnect     = 1
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeUnsubscribe = 10
	typePingreq     = 12
	typeDisconnect  = 14
)

// Reason codes, MQTT 5 section 2.4.
const (
	codeMalformed     = 0x81
	codeProtocol      = 0x82
	codeVersion       = 0x84
	codeClientID      = 0x85
	codePassword      = 0x86
	codeNotAuthorized = 0x87
	codeBusy          = 0x89
	codeShuttingDown  = 0x8B
	codeAuthMethod    = 0x8C
	codeTakenOver     = 0x8E
	codeFilter        = 0x8F
	codeTopic         = 0x90
	codeAlias         = 0x94
	codeTooLarge      = 0x95
	codeQuota         = 0x97
	codeAdministered  = 0x98
	codeRetain        = 0x9A
)

// violation says why a peer must go: the reason code of MQTT 5, and words for the log that hold nothing of what it sent.
type violation struct {
	code byte
	text string
}

func (v *violation) Error() string { return v.text }

func malformed(text string) *violation { return &violation{codeMalformed, text} }

// cursor takes values off the body of a packet. After the first value that is not there or is not valid, bad says what
// was wrong and all further values are zero.
type cursor struct {
	b   []byte
	bad *violation
}

func (c *cursor) fail(text string) {
	if c.bad == nil {
		c.bad = malformed(text)
	}
	c.b = nil
}

func (c *cursor) take(n int) []byte {
	if len(c.b) < n {
		c.fail("a packet ends too early")
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) byte() byte {
	if v := c.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if v := c.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if v := c.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// varint takes a variable byte integer of at most four bytes (MQTT 5 section 1.5.5).
func (c *cursor) varint() uint32 {
	var n uint32
	for shift := 0; shift < 28; shift += 7 {
		b := c.byte()
		n |= uint32(b&0x7f) << shift
		if b&0x80 == 0 {
			return n
		}
	}
	c.fail("a length of more than four bytes")
	return 0
}

func (c *cursor) binary() []byte { return c.take(int(c.uint16())) }

// text takes a UTF-8 string. U+0000 is forbidden in it (MQTT-1.5.4-2).
func (c *cursor) text() string {
	b := c.binary()
	if !utf8.Valid(b) || strings.IndexByte(string(b), 0) >= 0 {
		c.fail("a string that is not UTF-8, or has a NUL in it")
		return ""
	}
	return string(b)
}

// form is how the value of a property is written.
type form uint8

const (
	asByte form = iota + 1
	asUint16
	asUint32
	asVarint
	asText
	asBinary
	asPair
)

// Properties of MQTT 5 that are looked at.
const (
	propSubscriptionID  = 11
	propSessionExpiry   = 17
	propAuthMethod      = 21
	propProblemInfo     = 23
	propWillDelay       = 24
	propReceiveMaximum  = 33
	propTopicAlias      = 35
	propUser            = 38
	propMaxPacket       = 39
	propPayloadFormat   = 1
	propRequestResponse = 25
)

// willProperties stands for a packet type where the properties of a will are meant.
const willProperties = 0

// properties says for each property how it is written and in which packets of a client it may stand, one bit each
// (MQTT 5 section 2.2.2.2).
var properties = map[byte]struct {
	form form
	in   uint16
}{
	propPayloadFormat:   {asByte, 1<<typePublish | 1<<willProperties},
	2:                   {asUint32, 1<<typePublish | 1<<willProperties}, // message expiry interval
	3:                   {asText, 1<<typePublish | 1<<willProperties},   // content type
	8:                   {asText, 1<<typePublish | 1<<willProperties},   // response topic
	9:                   {asBinary, 1<<typePublish | 1<<willProperties}, // correlation data
	propSubscriptionID:  {asVarint, 1 << typeSubscribe},
	propSessionExpiry:   {asUint32, 1<<typeConnect | 1<<typeDisconnect},
	propAuthMethod:      {asText, 1 << typeConnect},
	22:                  {asBinary, 1 << typeConnect}, // authentication data
	propProblemInfo:     {asByte, 1 << typeConnect},
	propWillDelay:       {asUint32, 1 << willProperties},
	propRequestResponse: {asByte, 1 << typeConnect},
	31:                  {asText, 1<<typePuback | 1<<typePubrec | 1<<typePubrel | 1<<typePubcomp | 1<<typeDisconnect}, // reason string
	propReceiveMaximum:  {asUint16, 1 << typeConnect},
	34:                  {asUint16, 1 << typeConnect}, // topic alias maximum
	propTopicAlias:      {asUint16, 1 << typePublish},
	propUser: {asPair, 1<<typeConnect | 1<<typePublish | 1<<typePuback | 1<<typePubrec | 1<<typePubrel | 1<<typePubcomp |
		1<<typeSubscribe | 1<<typeUnsubscribe | 1<<typeDisconnect | 1<<willProperties},
	propMaxPacket: {asUint32, 1 << typeConnect},
}

// property is one property with a number as its value, or else with its name and value as text.
type property struct {
	id        byte
	n         uint32
	key, text string
}

// properties takes the properties of a packet of the kind and calls each, which may be nil, with every one of them.
func (c *cursor) properties(kind byte, each func(property)) {
	p := cursor{b: c.take(int(c.varint()))}
	var seen uint64
	for len(p.b) > 0 && p.bad == nil {
		v := property{id: p.byte()}
		def, ok := properties[v.id]
		if !ok || def.in&(1<<kind) == 0 {
			p.bad = &violation{codeProtocol, "a property that is unknown or does not belong there"}
			break
		}
		if seen&(1<<v.id) != 0 && v.id != propUser {
			p.bad = &violation{codeProtocol, "a property is given twice"}
			break
		}
		seen |= 1 << v.id
		switch def.form {
		case asByte:
			if v.n = uint32(p.byte()); v.n > 1 {
				p.bad = &violation{codeProtocol, "a property that is neither 0 nor 1"}
			}
		case asUint16:
			v.n = uint32(p.uint16())
		case asUint32:
			v.n = p.uint32()
		case asVarint:
			v.n = p.varint()
		case asText:
			v.text = p.text()
		case asBinary:
			p.binary()
		case asPair:
			v.key, v.text = p.text(), p.text()
		}
		if each != nil && p.bad == nil {
			each(v)
		}
	}
	if p.bad != nil && c.bad == nil {
		c.bad, c.b = p.bad, nil
	}
}
