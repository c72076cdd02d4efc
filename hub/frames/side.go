package frames

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/lxzan/gws"
)

// side is the net.Conn that gws sees. It puts the guard before the reads of gws, and decides what becomes of the close
// frames that gws writes: the only thing that it writes after the upgrade.
type side Conn

var _ net.Conn = (*side)(nil)

// Read returns what the peer sent as far as the guard lets it pass.
func (s *side) Read(p []byte) (int, error) {
	c := (*Conn)(s)
	if c.tcp == nil || c.early != nil || c.halted {
		return c.readOther(p)
	}
	c.tcp.into(p)
	return c.pass(c.tcp.done(c.tcp.raw.Read(c.tcp.try))) // here, with no frame of ours between, see tcpReader
}

// readOther reads where it is rarely read from: nowhere any more, or what the peer sent right behind its request, or TLS.
func (c *Conn) readOther(p []byte) (int, error) {
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
func (c *Conn) pass(p []byte, err error) (int, error) {
	frame, message := c.owner.Came(len(p))
	passed, v := c.guard.check(p, frame, message, c.Now)
	if v.code != 0 {
		c.halted = true
		c.owner.Broke(v.code, v.reason)
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
// cannot read. Our writer sends them, unless another code was decided on before.
func (s *side) Write(p []byte) (int, error) {
	c := (*Conn)(s)
	if c.ws == nil {
		n, err := c.Answer(c.withDeflate(p))
		return min(n, len(p)), err
	}
	if c.broken || len(p) < 2 {
		return len(p), nil
	}
	code := uint16(CloseEmpty)
	if len(p) >= 4 {
		code = binary.BigEndian.Uint16(p[2:])
	}
	switch code {
	case CloseProtocol, CloseUTF8, CloseTooBig:
		c.owner.Broke(code, "")
	default:
		c.owner.Left(code)
	}
	return len(p), nil
}

// withDeflate adds what was agreed on to the answer to the upgrade. gws adds only what it has agreed on by itself.
func (c *Conn) withDeflate(answer []byte) []byte {
	const end = "\r\n"
	if !c.Deflates() || !bytes.HasPrefix(answer, []byte("HTTP/1.1 101 ")) {
		return answer
	}
	answer = bytes.Clone(answer[:len(answer)-len(end)])
	return fmt.Appendf(answer, "%s: %s"+end+end, headerExtensions, c.guard.deflate.answer)
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

// events takes what the read loop of gws has to tell. All methods run in the reader. They are those of a pointer, as gws would
// call others by way of a frame more on the stack.
type events struct{}

var _ gws.Event = (*events)(nil)

func connOf(socket *gws.Conn) *Conn { return (*Conn)(socket.NetConn().(*side)) }

func (*events) OnOpen(*gws.Conn) {}

// OnClose has nothing to add: what gws wanted to send told the owner how the connection ends.
func (*events) OnClose(*gws.Conn, error) {}

func (*events) OnPing(socket *gws.Conn, payload []byte) {
	c := connOf(socket)
	c.owner.Controlled()
	c.pong.Store(&payload) // gws allocates the payload of a control frame anew
	c.Wake()
}

func (*events) OnPong(socket *gws.Conn, _ []byte) { connOf(socket).owner.Controlled() }

func (*events) OnMessage(socket *gws.Conn, m *gws.Message) {
	c := connOf(socket)
	switch deflated, text := c.guard.deflate.next(); {
	case c.Ending():
	case deflated:
		c.receiveDeflated(m, text)
	default:
		c.owner.Receive(m.Opcode == gws.OpcodeText, m.Bytes())
	}
	_ = m.Close() // its bytes go back to the pool of gws, but not after a panic; it never fails
}
