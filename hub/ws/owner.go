package ws

import (
	"cmp"
	"math"

	"telemetryhub/device/wire"
	"telemetryhub/hub/crew"
	"telemetryhub/hub/frames"
)

var _ frames.Owner = (*conn)(nil)

// Came counts. How long a message may be gws looks after.
func (c *conn) Came(n int) (frame, message uint64) {
	c.srv.Metrics.BytesIn.Add(uint64(n))
	return uint64(c.srv.maxFrame), math.MaxUint64
}

// Receive hands a message to the stream.
func (c *conn) Receive(text bool, frame []byte) {
	c.srv.Metrics.FramesIn.Add(1)
	c.lastFrame.Store(int64(c.srv.now()))
	c.receiving.Store(true)
	v := c.stream.receive(text, frame)
	c.receiving.Store(false)
	if v.code != 0 {
		c.Close(v.code, v.reason)
		return
	}
	if !c.greeted.Load() {
		c.greeted.Store(true)
	}
}

// Controlled notes that a ping or a pong came.
func (c *conn) Controlled() {
	c.lastFrame.Store(int64(c.srv.now()))
	c.stream.alive()
}

// Left answers the peer.
func (c *conn) Left(code uint16) { c.Close(wire.CloseCode(code), "") }

// Broke closes with the code that tells a device whether to come back: with 1009 it would, with the same frame.
func (c *conn) Broke(code uint16, reason string) {
	switch to := wire.CloseCode(code); code {
	case frames.CloseTooBig:
		c.Close(wire.CloseTooBig, wire.CloseTooBig.Reason())
	case frames.CloseTooFast:
		c.Close(wire.CloseTooFast, wire.CloseTooFast.Reason())
	case frames.ClosePolicy:
		c.Close(wire.CloseProtocol, reason)
	case frames.CloseUTF8:
		c.Close(to, cmp.Or(reason, "text that is not UTF-8"))
	default:
		c.Close(to, cmp.Or(reason, "a frame that RFC 6455 does not allow"))
	}
}

// Fill appends what is to be written. It does not use the writing side of gws, whose calls make one message of many slices but
// not one write of many messages, and whose lock is held while a peer does not read. After a panic of the stream the writer has
// been woken again and sends the close frame.
func (c *conn) Fill(dst []byte) (out []byte, more bool) {
	out = c.AppendControl(dst)
	if c.failed.Load() {
		return out, false
	}
	defer c.recovered()
	for more = true; more && len(out) < crew.Gather; {
		start := len(out)
		next, form, ok := c.stream.next(frames.Begin(out))
		if !ok {
			return next[:start], false
		}
		out = frames.Finish(next, start, form)
		c.srv.Metrics.FramesOut.Add(1)
		if form&frames.Deflated != 0 {
			c.srv.Metrics.FramesDeflated.Add(1)
		}
	}
	return out, more
}
