package ws

import (
	"encoding/binary"
	"time"

	"telemetryhub/device/wire"
)

// States of conn.writer. A wake-up is never lost: one that comes while the writer looks for the last time makes it look
// once more.
const (
	writerIdle    = iota // no goroutine
	writerRuns           // one goroutine is at work
	writerAgain          // it is, and must look once more
	writerStopped        // the connection ends; nothing starts it again
)

const (
	// gather is how much is collected before it is written, so that many acks cost one system call.
	gather = 32 << 10
	// piece is the most that is written under one deadline: a peer that reads slowly but reads gets a large frame too.
	piece = 64 << 10
	// turn is about how much is written before others are written to.
	turn = 256 << 10
	// lastWords bounds what the stream may still send when the connection is being closed.
	lastWords = 64 << 10
	// maxReason is the longest text in a close frame, RFC 6455 section 5.5.
	maxReason = 123
)

// Wake makes a writer run. It returns at once.
func (c *conn) Wake() {
	for {
		switch c.writer.Load() {
		case writerIdle:
			if c.writer.CompareAndSwap(writerIdle, writerRuns) {
				c.srv.crew.add(c)
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

// releaseWriter lets the writer run that was held back until the stream was there.
func (c *conn) releaseWriter() {
	if !c.writer.CompareAndSwap(writerRuns, writerIdle) {
		c.srv.crew.add(c) // it was woken meanwhile
	}
}

// write is the writer: it ends when there is nothing more to write. It does not use the writing side of gws, whose calls
// make one message of many slices but not one write of many messages, and whose lock is held while a peer does not read.
func (c *conn) write(h *hand) {
	for {
		// Once a write has failed there is nothing to do but to wait for the reader, which kill has woken.
		if !c.pump(h) {
			c.kill()
		}
		switch {
		case c.writer.CompareAndSwap(writerRuns, writerIdle):
			return
		case c.writer.CompareAndSwap(writerAgain, writerRuns):
			if h.crew != nil {
				h.crew.add(c) // others first
				return
			}
			continue
		}
		c.pump(h) // stopped, perhaps before the last wake-up was heeded
		close(c.gone)
		return
	}
}

// stopWriter returns when no writer runs, and none will.
func (c *conn) stopWriter() {
	c.gone = make(chan struct{})
	if c.writer.Swap(writerStopped) != writerIdle {
		<-c.gone
	}
}

// pump writes all that is due. It reports false if the connection failed. After a panic of the stream it reports true: the
// writer has been woken again and sends the close frame.
func (c *conn) pump(h *hand) (good bool) {
	good = true
	if c.closed {
		return good
	}
	defer c.recovered()
	h.frames = c.appendControl(h.frames[:0])
	sent := 0
	for {
		ending := c.ending.Load()
		before, ok := len(h.frames), false
		if !c.failed.Load() {
			h.frames, ok = c.appendNext(h.frames)
		}
		if ok {
			sent += len(h.frames) - before
			c.srv.Metrics.FramesOut.Add(1)
		}
		if ending && (!ok || sent > lastWords) {
			c.closed = true
			return c.send(h, appendClose(h.frames, c.code, c.reason))
		}
		if len(h.frames) >= gather || !ok {
			if !c.send(h, h.frames) {
				return false
			}
			h.frames = h.frames[:0]
			if ok && sent > turn && h.crew != nil {
				c.Wake()
				return true
			}
		}
		if !ok {
			return true
		}
	}
}

// appendControl appends the ping and the pong that are due. Of several pings only the last is answered, as RFC 6455
// section 5.5.3 allows, so that a flood of them cannot fill anything.
func (c *conn) appendControl(dst []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pongDue {
		c.pongDue = false
		dst = append(append(dst, 0x80|opPong, byte(len(c.pong))), c.pong...)
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

// send writes p, which may be a part of a frame. It reports false if nothing more can be written.
func (c *conn) send(h *hand, p []byte) bool {
	for len(p) > 0 {
		ending := c.ending.Load()
		if !c.setWriteDeadline(ending) {
			return false
		}
		if !ending && c.ending.Load() {
			continue // Close may have set its deadline in between
		}
		n, err := h.write(c, p[:min(len(p), piece)])
		c.srv.Metrics.BytesOut.Add(uint64(n))
		if err != nil {
			return false
		}
		p = p[n:]
	}
	return true
}

// setWriteDeadline gives a write its time. To set a deadline costs as much as copying kilobytes, so one that leaves enough
// stays.
func (c *conn) setWriteDeadline(ending bool) bool {
	if ending {
		return c.raw.SetWriteDeadline(c.endBy) == nil
	}
	now := c.srv.now()
	if c.writeBy-now >= c.srv.WriteTimeout/4*3 {
		return true
	}
	c.writeBy = now + c.srv.WriteTimeout
	return c.raw.SetWriteDeadline(time.Now().Add(c.srv.WriteTimeout)) == nil
}
