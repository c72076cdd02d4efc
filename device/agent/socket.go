package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device/wire"
)

const (
	// handshakeTime is the longest that the upgrade may take, if the dialer's context does not end before.
	handshakeTime = 10 * time.Second
	// maxAnswer is the most that the answer to the upgrade may be. net/http, by which gws reads it, has no limit.
	maxAnswer = 64 << 10
	// closeTime is how long the other side may take to answer a close.
	closeTime = time.Second
)

// socket is a Conn over a WebSocket. gws reads; writing is done here, because gws writes without a deadline, holds its lock
// meanwhile, and closes the connection before the reason that the hub gave has been read.
type socket struct {
	raw     net.Conn
	timeout time.Duration
	ws      *gws.Conn // nil before the upgrade
	answer  int       // bytes of the answer to the upgrade that may still come
	idle    atomic.Int64
	closing atomic.Bool
	pong    atomic.Pointer[[]byte] // the payload of the last ping, until it is answered

	// The fields below belong to the goroutine in Serve.
	handle func(wire.Format, []byte) error
	err    error

	wmu  sync.Mutex // one frame at a time; held while writing, at most timeout
	buf  []byte
	kill *time.Timer // ends a closing handshake that gets no answer
}

func newSocket(raw net.Conn, timeout time.Duration) *socket {
	s := &socket{raw: raw, timeout: timeout, answer: maxAnswer}
	s.idle.Store(int64(handshakeTime))
	return s
}

// Serve reads until the connection ends.
func (s *socket) Serve(handle func(wire.Format, []byte) error) (err error) {
	s.handle = handle
	defer func() {
		_ = s.raw.Close() // whatever ended it, it is over
		s.closing.Store(true)
		s.wmu.Lock()
		if s.kill != nil {
			s.kill.Stop()
		}
		s.wmu.Unlock()
		// gws v1.8.9 panics on a frame whose 64-bit length has its top bit set, outside of its own recovery.
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the frame made the reader panic: %v", wire.ErrProtocol, p)
		}
		if s.err != nil {
			err = s.err
		}
	}()
	s.ws.ReadLoop()
	return errors.New("the connection ended")
}

func (s *socket) SetIdle(d time.Duration) {
	s.idle.Store(int64(d))
	_ = s.raw.SetReadDeadline(time.Now().Add(d)) // if the connection is gone, reading says so
}

// Write sends one frame.
func (s *socket) Write(f wire.Format, frame []byte) error {
	op := gws.OpcodeBinary
	if f == wire.JSON {
		op = gws.OpcodeText
	}
	s.wmu.Lock()
	err := s.writeLocked(op, frame, s.timeout)
	s.wmu.Unlock()
	s.answerPing()
	return err
}

// answerPing sends the pong that is due, unless somebody is writing: he does it then.
func (s *socket) answerPing() {
	for s.pong.Load() != nil && s.wmu.TryLock() {
		if p := s.pong.Swap(nil); p != nil {
			_ = s.writeLocked(gws.OpcodePong, *p, s.timeout) // a broken connection shows in reading
		}
		s.wmu.Unlock()
	}
}

// Close starts the closing handshake; if that is not possible at once it just ends the connection.
func (s *socket) Close(code wire.CloseCode) {
	if s.closing.Swap(true) {
		return
	}
	if !s.wmu.TryLock() {
		_ = s.raw.Close() // a writer is stuck; this frees it
		return
	}
	defer s.wmu.Unlock()
	payload := binary.BigEndian.AppendUint16(nil, uint16(code))
	if s.writeLocked(gws.OpcodeCloseConnection, append(payload, code.Reason()...), closeTime) != nil {
		_ = s.raw.Close() // there is nobody to tell
		return
	}
	s.kill = time.AfterFunc(closeTime, func() { _ = s.raw.Close() })
}

// writeLocked writes one masked frame (RFC 6455 section 5.2). The caller holds wmu.
func (s *socket) writeLocked(op gws.Opcode, payload []byte, timeout time.Duration) error {
	b := append(s.buf[:0], 0x80|byte(op))
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	key := rand.Uint32() // ChaCha8, seeded by the system: not to be guessed, as section 10.3 wants it
	b = binary.LittleEndian.AppendUint32(b, key)
	start := len(b)
	b = append(b, payload...)
	mask(b[start:], key)
	s.buf = b[:0]
	if err := s.raw.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := s.raw.Write(b)
	return err
}

func mask(b []byte, key uint32) {
	wide := uint64(key)<<32 | uint64(key)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(wide >> (8 * i))
	}
}

// line is the net.Conn that gws sees: every read and write has a deadline, and gws cannot close it.
type line socket

func (l *line) Read(p []byte) (int, error) {
	if err := l.raw.SetReadDeadline(time.Now().Add(time.Duration(l.idle.Load()))); err != nil {
		return 0, err
	}
	if l.ws != nil {
		return l.raw.Read(p)
	}
	if l.answer <= 0 {
		return 0, errAnswer
	}
	n, err := l.raw.Read(p[:min(len(p), l.answer)])
	l.answer -= n
	return n, err
}

var errAnswer = errors.New("the answer to the upgrade is too long (is this the address of a hub?)")

// Write writes the request to upgrade. Later gws writes close frames only, at the end of reading.
func (l *line) Write(p []byte) (int, error) {
	if l.ws != nil && (l.closing.Swap(true) || !l.wmu.TryLock()) {
		return len(p), nil // there was a close already, or a stuck writer: nobody to tell
	}
	if l.ws != nil {
		defer l.wmu.Unlock()
	}
	if err := l.raw.SetWriteDeadline(time.Now().Add(closeTime)); err != nil {
		return 0, err
	}
	return l.raw.Write(p)
}

func (l *line) Close() error                     { return nil } // Serve does it
func (l *line) SetDeadline(time.Time) error      { return nil } // each read and write has its own
func (l *line) SetReadDeadline(time.Time) error  { return nil }
func (l *line) SetWriteDeadline(time.Time) error { return nil }
func (l *line) LocalAddr() net.Addr              { return l.raw.LocalAddr() }
func (l *line) RemoteAddr() net.Addr             { return l.raw.RemoteAddr() }

// events takes what the read loop of gws has to tell, all of it in the goroutine in Serve.
type events socket

func (e *events) OnOpen(*gws.Conn)         {}
func (e *events) OnPong(*gws.Conn, []byte) {}

func (e *events) OnPing(_ *gws.Conn, payload []byte) {
	e.pong.Store(&payload) // gws allocates the payload of a control frame anew
	(*socket)(e).answerPing()
}

func (e *events) OnClose(_ *gws.Conn, err error) {
	if e.err != nil {
		return
	}
	e.err = err
	var c *gws.CloseError
	if errors.As(err, &c) {
		e.err = &CloseError{Code: wire.CloseCode(c.Code), Reason: string(c.Reason)}
	}
}

func (e *events) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close() // its bytes go back to the pool of gws
	if e.err != nil {
		return
	}
	f := wire.CBOR
	if m.Opcode == gws.OpcodeText {
		f = wire.JSON
	}
	if e.err = e.handle(f, m.Bytes()); e.err == nil {
		return
	}
	code := CloseNormal
	if errors.Is(e.err, wire.ErrProtocol) || errors.Is(e.err, wire.ErrTooBig) {
		code = wire.CloseFor(e.err)
	}
	(*socket)(e).Close(code)
}
