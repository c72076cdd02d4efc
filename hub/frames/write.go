package frames

import "encoding/binary"

// maxReason is the longest text in a close frame, RFC 6455 section 5.5.
const maxReason = 123

// Ping has a ping sent. It is safe for concurrent use.
func (c *Conn) Ping() {
	c.pingDue.Store(true)
	c.Wake()
}

// AppendControl appends the pong and the ping that are due, for Fill. Of several pings of the peer only the last is answered, as
// RFC 6455 section 5.5.3 allows, so that a flood of them cannot fill anything.
func (c *Conn) AppendControl(dst []byte) []byte {
	if c.pong.Load() != nil {
		payload := *c.pong.Swap(nil)
		dst = append(append(dst, 0x80|opPong, byte(len(payload))), payload...)
	}
	if c.pingDue.Load() {
		c.pingDue.Store(false)
		dst = append(dst, 0x80|opPing, 0)
	}
	return dst
}

// Last appends the close frame.
func (c *Conn) Last(dst []byte) []byte {
	if c.code == CloseEmpty {
		return append(dst, 0x80|opClose, 0)
	}
	reason := clip(c.reason)
	dst = append(dst, 0x80|opClose, byte(2+len(reason)))
	dst = binary.BigEndian.AppendUint16(dst, c.code)
	return append(dst, reason...)
}

// clip cuts a reason to what fits into a close frame, between runes.
func clip(reason string) string {
	if len(reason) <= maxReason {
		return reason
	}
	end := 0
	for i := range reason {
		if i > maxReason {
			break
		}
		end = i
	}
	return reason[:end]
}

// Form is the form of a message.
type Form byte

// The forms, which are the first byte of a message in one frame, RFC 6455 section 5.2. Deflated, where that was agreed on, comes to
// one of the others: the payload is what deflate.Append makes, without its Tail.
const (
	Text     Form = 0x81
	Binary   Form = 0x82
	Deflated Form = rsv1
)

// Begin appends room for the header of a message.
func Begin(dst []byte) []byte { return append(dst, 0, 126, 0, 0) }

// Finish completes the header of the message that begins, with its room, at start: that of an unfragmented message from server
// to client, RFC 6455 section 5.2. The room fits the length that most have; a shorter or longer one moves the message.
func Finish(dst []byte, start int, form Form) []byte {
	switch n := len(dst) - start - 4; {
	case n <= 125:
		copy(dst[start+2:], dst[start+4:])
		dst = dst[:len(dst)-2]
		dst[start+1] = byte(n)
	case n <= 0xffff:
		binary.BigEndian.PutUint16(dst[start+2:], uint16(n))
	default:
		dst = append(dst, 0, 0, 0, 0, 0, 0)
		copy(dst[start+10:], dst[start+4:])
		dst[start+1] = 127
		binary.BigEndian.PutUint64(dst[start+2:], uint64(n))
	}
	dst[start] = byte(form)
	return dst
}
