package ws

import (
	"encoding/binary"

	"telemetryhub/device/wire"
	"telemetryhub/hub/crew"
)

// maxReason is the longest text in a close frame, RFC 6455 section 5.5.
const maxReason = 123

var _ crew.Source = (*conn)(nil)

// Fill appends what is to be written. It does not use the writing side of gws, whose calls make one message of many slices but
// not one write of many messages, and whose lock is held while a peer does not read. After a panic of the stream the writer has
// been woken again and sends the close frame.
func (c *conn) Fill(dst []byte) (out []byte, more bool) {
	out = c.appendControl(dst)
	if c.failed.Load() {
		return out, false
	}
	defer c.recovered()
	for more = true; more && len(out) < crew.Gather; {
		if out, more = c.appendNext(out); more {
			c.srv.Metrics.FramesOut.Add(1)
		}
	}
	return out, more
}

// Last appends the close frame.
func (c *conn) Last(dst []byte) []byte { return appendClose(dst, c.code, c.reason) }

// appendControl appends the ping and the pong that are due. Of several pings only the last is answered, as RFC 6455
// section 5.5.3 allows, so that a flood of them cannot fill anything.
func (c *conn) appendControl(dst []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pong != nil {
		dst = append(append(dst, 0x80|opPong, byte(len(*c.pong))), *c.pong...)
		c.pong = nil
	}
	if c.pingDue {
		c.pingDue = false
		dst = append(dst, 0x80|opPing, 0)
	}
	return dst
}

// appendNext appends the next message of the stream with its header, that of an unfragmented message from server to client,
// RFC 6455 section 5.2. The header has room for the length that most have; a shorter or longer one moves the message.
func (c *conn) appendNext(dst []byte) ([]byte, bool) {
	start := len(dst)
	dst, text, ok := c.stream.next(append(dst, 0, 126, 0, 0))
	if !ok {
		return dst[:start], false
	}
	n := len(dst) - start - 4
	switch {
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
	if dst[start] = 0x82; text {
		dst[start] = 0x81
	}
	return dst, true
}

// appendClose appends a close frame.
func appendClose(dst []byte, code wire.CloseCode, reason string) []byte {
	if code == closeEmpty {
		return append(dst, 0x80|opClose, 0)
	}
	reason = clip(reason)
	dst = append(dst, 0x80|opClose, byte(2+len(reason)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
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
