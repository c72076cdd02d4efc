package ws

import (
	"encoding/binary"
	"sync"
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
	// lastWords bounds what the stream may still send when the connection is being closed.
	lastWords = 64 << 10
	// maxReason is the longest text in a close frame, RFC 6455 section 5.5.
	maxReason = 123
)

// outbox holds the buffers of a writer while it runs.
type outbox struct {
	frames []byte // whole frames, ready to be written
	body   []byte // the message that is being framed
}

// outboxes keeps them between writers, as an idle connection needs none.
var outboxes = sync.Pool{New: func() any { return &outbox{frames: make([]byte, 0, 1024), body: make([]byte, 0, 512)} }}

func (o *outbox) release() {
	if cap(o.frames) <= 2*gather && cap(o.body) <= piece {
		outboxes.Put(o)
	}
}

// Wake makes a writer run. It returns at once.
func (c *conn) Wake() {
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

// releaseWriter lets the writer run that was held back until the stream was there.
func (c *conn) releaseWriter() {
	if !c.writer.CompareAndSwap(writerRuns, writerIdle) {
		go c.write() // it was woken meanwhile
	}
}

// write is the writer: it ends when there is nothing more to write. It does not use the writing side of gws, whose calls
// make one message of many slices but not one write of many messages, and whose lock is held while a peer does not read.
func (c *conn) write() {
	out := outboxes.Get().(*outbox)
	defer out.release()
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
func (c *conn) pump(out *outbox) (good bool) {
	good = true
	if c.closed {
		return good
	}
	defer c.recovered()
	out.frames = c.appendControl(out.frames[:0])
	sent := 0
	for {
		ending := c.ending.Load()
		var body []byte
		var text, ok bool
		if !c.failed.Load() {
			body, text, ok = c.stream.next(out.body[:0])
		}
		if ok {
			out.body = body
			sent += len(body)
			c.srv.Metrics.FramesOut.Add(1)
			if out.frames = appendHeader(out.frames, text, len(body)); len(body) > gather {
				if !c.send(out.frames) || !c.send(body) {
					return false
				}
				out.frames = out.frames[:0]
			} else {
				out.frames = append(out.frames, body...)
			}
		}
		if ending && (!ok || sent > lastWords) {
			c.closed = true
			return c.send(appendClose(out.frames, c.code, c.reason))
		}
		if len(out.frames) >= gather || !ok {
			if !c.send(out.frames) {
				return false
			}
			out.frames = out.frames[:0]
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

// appendHeader appends the header of an unfragmented message from server to client, RFC 6455 section 5.2.
func appendHeader(dst []byte, text bool, n int) []byte {
	op := byte(0x82)
	if text {
		op = 0x81
	}
	switch {
	case n <= 125:
		return append(dst, op, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(dst, op, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, op, 127), uint64(n))
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
			continue // Close may have set its deadline in between
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
