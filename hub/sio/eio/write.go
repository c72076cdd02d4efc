package eio

import (
	"encoding/binary"

	"telemetryhub/hub/crew"
)

// maxReason is the longest text in a close frame, RFC 6455 section 5.5.
const maxReason = 123

var _ crew.Source = (*conn)(nil)

// Fill appends what is to be written. It does not use the writing side of gws, whose calls make one message of many slices but
// not one write of many messages, and whose lock is held while a client does not read.
func (c *conn) Fill(dst []byte) (out []byte, more bool) {
	if out = c.appendControl(dst); stage(c.stage.Load()) == stageAttached {
		return c.session.fillFrames(out)
	}
	return out, false
}

// Last appends the close frame.
func (c *conn) Last(dst []byte) []byte { return appendClose(dst, c.code, c.reason) }

// fillFrames appends what is to be sent as frames, up to about crew.Gather bytes. It reports whether there may be more.
func (s *Session) fillFrames(dst []byte) (frames []byte, more bool) {
	s.pull.Lock()
	defer s.pull.Unlock()
	if frames = dst; s.over {
		return frames, false
	}
	defer s.recovered()
	if s.takePing() {
		frames = append(frames, opFinText, 1, typePing)
	}
	sent := uint64(0)
	for len(frames) < crew.Gather {
		start := len(frames)
		// The header of most frames has four bytes; the others are moved.
		msg, text, ok := s.stream.Next(append(frames, 0, 0, 0, 0, typeMessage))
		if !ok {
			s.srv.Metrics.MessagesOut.Add(sent)
			return msg[:start], false
		}
		frames = setHeader(msg, start, text)
		sent++
	}
	s.srv.Metrics.MessagesOut.Add(sent)
	return frames, true
}

const (
	opFinText   = 0x81
	opFinBinary = 0x82
)

// setHeader completes the frame that begins at start: four bytes for the header, the type of a text message, the message.
func setHeader(frames []byte, start int, text bool) []byte {
	op := byte(opFinText)
	if !text {
		op = opFinBinary
		frames = append(frames[:start+4], frames[start+5:]...)
	}
	switch n := len(frames) - start - 4; {
	case n <= 125:
		frames = append(frames[:start+2], frames[start+4:]...)
		frames[start], frames[start+1] = op, byte(n)
	case n <= 0xffff:
		frames[start], frames[start+1] = op, 126
		binary.BigEndian.PutUint16(frames[start+2:], uint16(n))
	default:
		frames = append(frames, 0, 0, 0, 0, 0, 0)
		copy(frames[start+10:], frames[start+4:start+4+n])
		frames[start], frames[start+1] = op, 127
		binary.BigEndian.PutUint64(frames[start+2:], uint64(n))
	}
	return frames
}

// appendControl appends what goes before all messages: the open packet or the answer to a probe, and the pong that is due. Of
// several pings only the last is answered, as RFC 6455 section 5.5.3 allows, so that a flood of them cannot fill anything.
func (c *conn) appendControl(dst []byte) []byte {
	if !c.control.Load() {
		return dst
	}
	c.control.Store(false) // what comes from now on is seen below, or the next time
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hello != nil {
		start := len(dst)
		dst = setHeader(append(append(dst, 0, 0, 0, 0), c.hello...), start, true)
		c.hello = nil
	}
	if c.pongDue {
		c.pongDue = false
		dst = append(append(dst, 0x80|opPong, byte(len(c.pong))), c.pong...)
		c.pong = nil
	}
	return dst
}

// appendClose appends a close frame.
func appendClose(dst []byte, code uint16, reason string) []byte {
	if code == closeEmpty {
		return append(dst, 0x80|opClose, 0)
	}
	reason = clip(reason)
	dst = append(dst, 0x80|opClose, byte(2+len(reason)))
	dst = binary.BigEndian.AppendUint16(dst, code)
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
