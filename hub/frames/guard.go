package frames

import (
	"encoding/binary"
	"time"
)

// Limits of what a peer may do below the level of messages.
const (
	// maxFragments is the largest number of frames that one message may be cut into: 64 bytes each at 64 KiB.
	maxFragments = 1024
	// controlBurst pings, pongs and closes may come at once, and controlRate a second in the long run.
	controlBurst = 100
	controlRate  = 20
)

// fin marks the last frame of a message.
const fin = 0x80

// Opcodes of control frames, RFC 6455 section 5.2.
const (
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA
)

// violation says why a connection must end. The zero violation means that all is well.
type violation struct {
	code   uint16
	reason string
}

// guard follows the frame headers in the bytes that a peer sends, before gws sees them. gws v1.8.9 turns a 64-bit length
// into an int without looking at its sign, and its read loop panics; it has no limit on the number of fragments and of control
// frames; and its limit on messages is one for the whole life of a connection. What the guard does not check, gws does.
type guard struct {
	left      uint64   // bytes of the current frame that are still to come: masking key and payload
	head      [10]byte // the header without the key, as far as it is here
	have      uint8
	fragments uint16 // frames of the current message so far
	message   uint64 // and their bytes

	deflate *inflating // nil unless the extension was agreed on

	control float64       // control frames that may still come at once
	since   time.Duration // when control was reckoned
}

// check looks at the next bytes from the peer. It returns how many of them may be passed on; if not all, the violation says
// why, and nothing after it may be passed on. frame and message are the most bytes of a frame and of a message just now; now
// tells a monotonic time and is asked for control frames only. With the extension the marks of deflated messages are taken away.
func (g *guard) check(p []byte, frame, message uint64, now func() time.Duration) (int, violation) {
	for i := 0; i < len(p); {
		if g.left > 0 {
			n := min(g.left, uint64(len(p)-i))
			g.left -= n
			i += int(n)
			continue
		}
		if g.have == 0 && g.deflate != nil {
			p[i] = g.deflate.begin(p[i])
		}
		g.head[g.have] = p[i]
		g.have++
		i++
		if g.have < 2 || g.have < headLen(g.head[1]) {
			continue
		}
		g.have = 0
		v := g.begin(frame, message)
		if g.head[0]&0x0f >= opClose && v.code == 0 && !g.mayControl(now()) {
			v = violation{CloseTooFast, "too many control frames"}
		}
		if v.code != 0 {
			return i - 1, v // without the last byte of its header gws cannot begin with the frame
		}
	}
	return len(p), violation{}
}

// headLen returns the length of a frame header without the masking key, told by its second byte.
func headLen(b byte) uint8 {
	switch b & 0x7f {
	case 126:
		return 4
	case 127:
		return 10
	}
	return 2
}

// begin judges the frame whose header is complete.
func (g *guard) begin(frame, message uint64) violation {
	size := uint64(g.head[1] & 0x7f)
	switch size {
	case 126:
		size = uint64(binary.BigEndian.Uint16(g.head[2:]))
	case 127:
		size = binary.BigEndian.Uint64(g.head[2:])
	}
	switch fin, op := g.head[0]&fin != 0, g.head[0]&0x0f; {
	case size>>63 != 0:
		return violation{CloseProtocol, "the highest bit of a frame length is set"} // RFC 6455 section 5.2
	case op >= opClose && g.head[1]&0x7f > 125:
		return violation{CloseProtocol, "a control frame of more than 125 bytes"} // RFC 6455 section 5.5
	case op >= opClose:
	case size > frame || g.message+size > message:
		return violation{CloseTooBig, "a message over the limit"}
	case fin:
		g.fragments, g.message = 0, 0
	default:
		g.message += size
		if g.fragments++; g.fragments == maxFragments {
			return violation{ClosePolicy, "a message in too many fragments"}
		}
	}
	g.left = size
	if g.head[1]&0x80 != 0 {
		g.left += 4
	}
	return violation{}
}

// mayControl counts a control frame and reports whether it is within the limits.
func (g *guard) mayControl(now time.Duration) bool {
	if g.since != 0 {
		g.control = min(controlBurst, g.control+controlRate*(now-g.since).Seconds())
	} else {
		g.control = controlBurst
	}
	g.since = max(now, 1)
	if g.control < 1 {
		return false
	}
	g.control--
	return true
}
