package eio

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/lxzan/gws"
)

// side is the net.Conn that gws sees. It puts the guard before the reads of gws, and decides what becomes of the close frames
// that gws writes: the only thing that it writes after the upgrade.
type side conn

var _ net.Conn = (*side)(nil)

// Read returns what the client sent as far as the guard lets it pass. Its frame is small, as it stays on the stack of an idle
// connection: with a little more, the stack could not shrink to half.
func (s *side) Read(p []byte) (int, error) {
	c := (*conn)(s)
	if c.halted || len(c.early) > 0 {
		return c.readEarly(p)
	}
	n, err := c.Raw.Read(p)
	return c.pass(p[:n], err)
}

// readEarly returns what the client sent right behind its request.
func (c *conn) readEarly(p []byte) (int, error) {
	if c.halted {
		return 0, io.EOF
	}
	n := copy(p, c.early)
	if c.early = c.early[n:]; len(c.early) == 0 {
		c.early = nil
	}
	return c.pass(p[:n], nil)
}

// pass puts what was read before the guard.
func (c *conn) pass(p []byte, err error) (int, error) {
	c.srv.Metrics.BytesIn.Add(uint64(len(p)))
	passed, v := c.guard.check(p, c.session.limit(), c.srv.now)
	if v.code != 0 {
		c.halted = true
		why := causeProtocol
		if v.code == closeTooBig {
			why = causeTooBig
		}
		c.fail(why, v.code, v.reason)
		if passed == 0 {
			return 0, io.EOF
		}
		return passed, nil
	}
	if err != nil && !(errors.Is(err, os.ErrDeadlineExceeded) && c.Ending()) {
		c.broken = true
	}
	return len(p), err
}

// Write writes the answer to the upgrade. Later gws writes close frames only, in answer to one of the client or to what it
// cannot read.
func (s *side) Write(p []byte) (int, error) {
	c := (*conn)(s)
	if c.ws == nil {
		return c.Answer(p)
	}
	if c.broken || len(p) < 2 {
		return len(p), nil
	}
	code, why := uint16(closeEmpty), causeClient
	if len(p) >= 4 {
		code = binary.BigEndian.Uint16(p[2:])
	}
	switch code {
	case closeProtocol, closeUTF8:
		why = causeProtocol
	case closeTooBig:
		why = causeTooBig
	}
	c.fail(why, code, "") // our writer sends it, unless another code was decided on before
	return len(p), nil
}

// Close does nothing: the connection is closed when the reader has returned.
func (s *side) Close() error { return nil }

// SetDeadline does nothing, as the upgrade is the only one to call it and writes under a deadline of its own.
func (s *side) SetDeadline(time.Time) error { return nil }

// SetReadDeadline is not called by gws.
func (s *side) SetReadDeadline(time.Time) error { return errors.ErrUnsupported }

// SetWriteDeadline is not called by gws.
func (s *side) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

func (s *side) LocalAddr() net.Addr  { return s.Raw.LocalAddr() }
func (s *side) RemoteAddr() net.Addr { return s.Raw.RemoteAddr() }

// events takes what the read loop of gws has to tell. All methods run in the reader, under conn.ended.
type events struct{}

var _ gws.Event = events{}

func connOf(socket *gws.Conn) *conn { return (*conn)(socket.NetConn().(*side)) }

func (events) OnOpen(*gws.Conn) {}

// OnClose has nothing to add: what gws wanted to send told conn how the connection ends.
func (events) OnClose(*gws.Conn, error) {}

func (events) OnPing(socket *gws.Conn, payload []byte) {
	c := connOf(socket)
	c.mu.Lock()
	c.pongDue, c.pong = true, payload // gws allocates the payload of a control frame anew
	c.mu.Unlock()
	c.control.Store(true)
	c.Wake()
}

func (events) OnPong(*gws.Conn, []byte) {}

func (events) OnMessage(socket *gws.Conn, m *gws.Message) {
	defer m.Close() // its bytes go back to the pool of gws
	c := connOf(socket)
	if c.Ending() {
		return
	}
	if m.Opcode != gws.OpcodeText {
		c.take(packet{kind: typeMessage, binary: true, data: m.Bytes()})
		return
	}
	p, err := readText(m.Bytes())
	if err != nil {
		c.fail(causeProtocol, closePolicy, "not an Engine.IO packet")
		return
	}
	c.take(p)
}
