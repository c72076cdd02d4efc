package eio

import (
	"encoding/binary"
	"sync"
	"time"
)

// States of conn.writer. A wake-up is never lost: one that comes while the writer looks for the last time makes it look once
// more.
const (
	writerIdle    = iota // no goroutine
	writerRuns           // one goroutine is at work
	writerAgain          // it is, and must look once more
	writerStopped        // the connection ends; nothing starts it again
)

const (
	// gather is how much is collected before it is written, so that many messages cost one system call.
	gather = 32 << 10
	// piece is the most that is written under one deadline: a client that reads slowly but reads gets a large frame too.
	piece = 64 << 10
	// lastWords bounds what the stream may still send when the connection is being closed.
	lastWords = 64 << 10
	// maxReason is the longest text in a close frame, RFC 6455 section 5.5.
	maxReason = 123
)

// outboxes keeps the buffers of writers, as an idle connection needs none.
var outboxes = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// wake makes a writer run. It returns at once.
func (c *conn) wake() {
	for {
		switch c.writer.Load() {
		case writerIdle:
			if c.writer.CompareAndSwap(writerIdle, writerRuns) {
				go c.write()
				return
			}
		case writerRuns:
			if c.writer.CompareAndSwap(writerRuns, writerAgain) {
				return
			}
		default:
			return
		}
	}
}

// write is the writer: it ends when there is nothing more to write. It does not use the writing side of gws, whose calls make
// one message of many slices but not one write of many messages, and whose lock is held while a client does not read.
func (c *conn) write() {
	out := outboxes.Get().(*[]byte)
	defer func() {
		if cap(*out) <= 4*gather {
			outboxes.Put(out)
		}
	}()
	for {
		// Once a write has failed there is nothing to do but to wait for the reader, which kill has woken.
		if !c.pump(out) {
			c.kill()
		}
		switch {
		case c.writer.CompareAndSwap(writerRuns, writerIdle):
			return
		case c.writer.CompareAndSwap(writerAgain, writerRuns):
			continue
		}
		c.pump(out) // stopped, perhaps before the last wake-up was heeded
		close(c.idle)
		return
	}
}

// stopWriter returns when no writer runs, and none will.
func (c *conn) stopWriter() {
	c.idle = make(chan struct{})
	if c.writer.Swap(writerStopped) != writerIdle {
		<-c.idle
	}
}

// pump writes all that is due. It reports false if the connection failed.
func (c *conn) pump(out *[]byte) bool {
	if c.closed {
		return true
	}
	sent := 0
	for {
		ending, more := c.ending.Load(), false
		frames := c.appendControl((*out)[:0])
		if stage(c.stage.Load()) == stageAttached {
			frames, more = c.session.fillFrames(frames)
		}
		*out = frames
		sent += len(frames)
		if ending && (!more || sent > lastWords) {
			c.closed = true
			*out = appendClose(frames, c.code, c.reason)
			return c.send(*out)
		}
		if !c.send(frames) {
			return false
		}
		if !more {
			return true
		}
	}
}

// fillFrames appends what is to be sent as frames, up to about gather bytes. It reports whether there may be more.
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
	for len(frames) < gather {
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

// send writes p. It reports false if nothing more can be written.
func (c *conn) send(p []byte) bool {
	for len(p) > 0 {
		deadline, ending := time.Now().Add(c.srv.WriteTimeout), c.ending.Load()
		if ending {
			deadline = c.endBy
		}
		if c.raw.SetWriteDeadline(deadline) != nil {
			return false
		}
		if !ending && c.ending.Load() {
			continue // close may have set its deadline in between
		}
		n, err := c.raw.Write(p[:min(len(p), piece)])
		c.srv.Metrics.BytesOut.Add(uint64(n))
		if err != nil {
			return false
		}
		p = p[n:]
	}
	return true
}
