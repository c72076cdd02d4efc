package mqtt

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Types of MQTT packets, section 2.2.1 of MQTT 3.1.1.
const (
	typeConnack  = 2
	typePublish  = 3
	typePuback   = 4
	typeSuback   = 9
	typePingresp = 13
)

// maxPacket is the largest packet that is taken from a broker: what the hub takes in one piece is at most 64 KiB, the rest is
// for topics.
const maxPacket = 128 << 10

// errBroker is wrapped by the errors about what a broker sent.
var errBroker = errors.New("the broker broke the protocol")

func broke(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errBroker, fmt.Sprintf(format, args...))
}

// checker reads packets of a broker and lets only those through that paho survives and that a broker may send to the bridge,
// which subscribes to one topic with QoS 1 and publishes with QoS 1.
type checker struct {
	r         *bufio.Reader
	publishes bool // the bridge has subscribed, or had in a session that the broker remembers
	answered  bool // the CONNACK has come
	refused   bool // and said no
	// tooLarge is called for a message over maxPacket, which is passed over: id is zero with QoS 0.
	tooLarge func(id uint16)
	buf      []byte
}

// next reads one packet. It is valid until the next call.
func (c *checker) next() ([]byte, error) {
	for {
		head, err := c.r.ReadByte()
		if err != nil {
			return nil, err
		}
		size, err := c.length()
		if err != nil {
			return nil, err
		}
		kind := head >> 4
		if err := c.allowed(kind, head&15, size); err != nil {
			return nil, err
		}
		if size > maxPacket {
			if err := c.passOver(head, size); err != nil {
				return nil, err
			}
			continue
		}
		c.buf = append(c.buf[:0], head)
		c.buf = binary.AppendUvarint(c.buf, uint64(size)) // the same encoding, but always the shortest
		start := len(c.buf)
		c.buf = append(c.buf, make([]byte, size)...)
		body := c.buf[start:]
		if _, err := io.ReadFull(c.r, body); err != nil {
			return nil, unexpected(err)
		}
		if err := c.content(kind, head, body); err != nil {
			return nil, err
		}
		return c.buf, nil
	}
}

// length reads the remaining length, section 2.2.3.
func (c *checker) length() (int, error) {
	n := 0
	for shift := 0; shift < 28; shift += 7 {
		b, err := c.r.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		if n |= int(b&127) << shift; b < 128 {
			return n, nil
		}
	}
	return 0, broke("a length of more than four bytes")
}

// allowed checks what can be known before the body is read.
func (c *checker) allowed(kind, flags byte, size int) error {
	want := map[byte]int{typeConnack: 2, typePuback: 2, typeSuback: 3, typePingresp: 0}
	exact, known := want[kind]
	switch {
	case (kind == typeConnack) == c.answered || c.refused:
		return broke("a packet of type %d at the wrong time", kind)
	case kind == typePublish && !c.publishes:
		return broke("a message although nothing was subscribed")
	case kind == typePublish && flags>>1&3 > 1:
		return broke("a message with QoS %d although QoS 1 was asked for", flags>>1&3)
	case kind == typePublish && flags&8 != 0 && flags>>1&3 == 0:
		return broke("a repetition of a message with QoS 0")
	case kind == typePublish:
		return nil
	case !known || flags != 0 || size != exact:
		return broke("a packet of type %d with flags %d and %d bytes", kind, flags, size)
	}
	return nil
}

func (c *checker) content(kind, head byte, body []byte) error {
	switch kind {
	case typeConnack:
		if body[0] > 1 || body[1] > 5 || body[0] == 1 && body[1] != 0 {
			return broke("an answer to the connect of %v", body)
		}
		c.answered, c.refused = true, body[1] != 0
	case typePuback, typeSuback:
		if body[0] == 0 && body[1] == 0 {
			return broke("an acknowledgement of message 0")
		}
		if kind == typeSuback && body[2] > 1 && body[2] != 0x80 {
			return broke("a subscription with QoS %d", body[2])
		}
	case typePublish:
		topic, rest, ok := cutString(body)
		if !ok || topic == "" || !utf8.ValidString(topic) || strings.ContainsAny(topic, "+#\x00") {
			return broke("a message with the topic %.100q", topic)
		}
		if head>>1&3 == 1 && (len(rest) < 2 || rest[0] == 0 && rest[1] == 0) {
			return broke("a message without a number")
		}
	}
	return nil
}

// passOver reads a message that is too large and forgets it. Cutting the connection would not help: the broker sends it again.
func (c *checker) passOver(head byte, size int) error {
	var n [2]byte
	if _, err := io.ReadFull(c.r, n[:]); err != nil {
		return unexpected(err)
	}
	topic := int(binary.BigEndian.Uint16(n[:]))
	id := uint16(0)
	if size -= len(n) + topic; size < 0 {
		return broke("a topic that is longer than its message")
	}
	if _, err := c.r.Discard(topic); err != nil {
		return unexpected(err)
	}
	if head>>1&3 == 1 {
		if size -= len(n); size < 0 {
			return broke("a message without a number")
		}
		if _, err := io.ReadFull(c.r, n[:]); err != nil {
			return unexpected(err)
		}
		if id = binary.BigEndian.Uint16(n[:]); id == 0 {
			return broke("a message with the number 0")
		}
	}
	if _, err := c.r.Discard(size); err != nil {
		return unexpected(err)
	}
	c.tooLarge(id)
	return nil
}

// cutString reads a string with its length before it, section 1.5.3.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) < 2 {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b)-2 < n {
		return "", nil, false
	}
	return string(b[2 : 2+n]), b[2+n:], true
}

// unexpected makes of the end of the connection within a packet what it is.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
