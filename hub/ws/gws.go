package ws

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device/wire"
)

// side is the net.Conn that gws sees. It puts the guard before the reads of gws, and decides what becomes of the close
// frames that gws writes: the only thing that it writes after the upgrade.
type side conn

var _ net.Conn = (*side)(nil)

// Read returns what the peer sent as far as the guard lets it pass.
func (s *side) Read(p []byte) (int, error) {
	c := (*conn)(s)
	if c.tcp == nil || c.early != nil || c.halted {
		return c.readOther(p)
	}
	c.tcp.into(p)
	return c.pass(c.tcp.done(c.tcp.raw.Read(c.tcp.try))) // here, with no frame of ours between, see tcpReader
}

// readOther reads where it is rarely read from: nowhere any more, or what the peer sent right behind its request, or TLS.
func (c *conn) readOther(p []byte) (int, error) {
	switch {
	case c.halted:
		return 0, io.EOF
	case c.early == nil:
		n, err := c.Raw.Read(p)
		return c.pass(p[:n], err)
	}
	n := copy(p, *c.early)
	if *c.early = (*c.early)[n:]; len(*c.early) == 0 {
		c.early = nil
	}
	return c.pass(p[:n], nil)
}

// pass puts what was read before the guard.
func (c *conn) pass(p []byte, err error) (int, error) {
	c.srv.Metrics.BytesIn.Add(uint64(len(p)))
	passed, v := c.guard.check(p, uint64(c.srv.maxFrame), c.srv.now)
	if v.code != 0 {
		c.halted = true
		c.Close(v.code, v.reason)
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

// Write writes the answer to the upgrade. Later gws writes close frames only, in answer to one of the peer or to what it
// cannot read.
func (s *side) Write(p []byte) (int, error) {
	c := (*conn)(s)
	if c.ws == nil {
		return c.Answer(p)
	}
	if c.broken || len(p) < 2 {
		return len(p), nil
	}
	code, reason := closeEmpty, ""
	if len(p) >= 4 {
		code, reason = closeOfGWS(wire.CloseCode(binary.BigEndian.Uint16(p[2:])))
	}
	c.Close(code, reason) // our writer sends it, unless another code was decided on before
	return len(p), nil
}

// closeOfGWS returns the code and the reason to send where gws sends the code.
func closeOfGWS(code wire.CloseCode) (wire.CloseCode, string) {
	switch code {
	case closeProtocol:
		return code, "a frame that RFC 6455 does not allow"
	case closeUTF8:
		return code, "text that is not UTF-8"
	case closeTooLarge:
		return wire.CloseTooBig, wire.CloseTooBig.Reason()
	}
	return code, ""
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

// events takes what the read loop of gws has to tell. All methods run in the reader, under conn.recovered.
type events struct{}

var _ gws.Event = events{}

func connOf(socket *gws.Conn) *conn { return (*conn)(socket.NetConn().(*side)) }

func (events) OnOpen(*gws.Conn) {}

// OnClose has nothing to add: what gws wanted to send told conn how the connection ends.
func (events) OnClose(*gws.Conn, error) {}

func (events) OnPing(socket *gws.Conn, payload []byte) {
	c := connOf(socket)
	c.controlled()
	c.mu.Lock()
	c.pong = &payload // gws allocates the payload of a control frame anew
	c.mu.Unlock()
	c.Wake()
}

func (events) OnPong(socket *gws.Conn, _ []byte) { connOf(socket).controlled() }

func (events) OnMessage(socket *gws.Conn, m *gws.Message) {
	defer m.Close() // its bytes go back to the pool of gws
	c := connOf(socket)
	if c.Ending() {
		return
	}
	c.srv.Metrics.FramesIn.Add(1)
	c.lastFrame.Store(int64(c.srv.now()))
	c.receiving.Store(true)
	v := c.stream.receive(m.Opcode == gws.OpcodeText, m.Bytes())
	c.receiving.Store(false)
	if v.code != 0 {
		c.Close(v.code, v.reason)
		return
	}
	if !c.greeted.Load() {
		c.greeted.Store(true)
	}
}

// controlled notes that a ping or a pong came.
func (c *conn) controlled() {
	c.lastFrame.Store(int64(c.srv.now()))
	c.stream.alive()
}
