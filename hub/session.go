package hub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/storage"
)

// ConnectOptions describes a device connection.
type ConnectOptions struct {
	// Format is what the hub sends.
	Format wire.Format
	// Remote is the address of the peer, for logs.
	Remote string
}

// Session is one device connection. Receive has one caller, the read loop; the other methods are safe for concurrent use.
type Session struct {
	hub    *Hub
	entity *entity
	peer   Peer
	format wire.Format
	remote string

	taken chan error // what became of the frame that Receive waits for

	// The fields below belong to the read loop.
	begun  bool        // a hello or data has come
	index  *wire.Index // of the schema that the device uses, nil before its birth
	stream *stream     // nil before a hello with a stream
	clock  device.TimeQuality

	mark    uint64        // committer only: the group that touched the session
	durable atomic.Bool   // something was committed since the last ack
	frames  atomic.Int64  // batches that the committer has not decided about yet
	bytes   atomic.Int64  // size of their frames
	room    chan struct{} // has room for one: frames has become less
	aliveMS atomic.Int64  // Unix ms of the last sign of life
	ackOf   atomic.Pointer[stream]

	mu      sync.Mutex // guards the fields below
	bad     []wire.Bad // what the next acks must tell
	out     [][]byte   // control messages to send
	greeted bool       // the welcome is in out or was sent
	told    *wire.Slow // the pause that the device knows of, nil if none
	ended   bool
}

// maxControl bounds the control messages that wait for one device. More only come from a peer that provokes them and
// does not read.
const maxControl = 16

// Connect begins the session of a device. A session that the device already has is closed as replaced.
// Errors: ErrUnknownDevice, ErrDraining, ErrTooMany, storage.ErrReadOnly.
func (h *Hub) Connect(_ context.Context, id device.ID, p Peer, o ConnectOptions) (*Session, error) {
	if h.draining.Load() {
		return nil, ErrDraining
	}
	if h.readOnly.Load() {
		return nil, fmt.Errorf("the hub takes no readings: %w", storage.ErrReadOnly)
	}
	e := h.registry.lookup(id)
	if e == nil {
		return nil, ErrUnknownDevice
	}
	if h.sessions.Add(1) > int64(h.options.MaxSessions) {
		h.sessions.Add(-1)
		return nil, ErrTooMany
	}
	s := &Session{hub: h, entity: e, peer: p, format: o.Format, remote: o.Remote, room: make(chan struct{}, 1), taken: make(chan error)}
	s.Alive()
	var late error // what has changed since the checks above; who changed it has not seen the session
	e.mu.Lock()
	old := e.session
	switch {
	case e.deleted.Load():
		late = ErrUnknownDevice
	case h.draining.Load():
		late = ErrDraining
	default:
		e.session = s
	}
	e.mu.Unlock()
	if late != nil {
		h.sessions.Add(-1)
		h.sessionEnded()
		return nil, late
	}
	if old != nil {
		h.stats.replaced.Add(1)
		old.peer.Close(wire.CloseReplaced, wire.CloseReplaced.Reason())
	}
	h.live.sessionChanged(e, true, time.Now())
	h.logger.Info("device connected", "device", id, "remote", o.Remote)
	return s, nil
}

// Alive notes a sign of life: any frame, or the answer to a ping.
func (s *Session) Alive() { s.aliveMS.Store(time.Now().UnixMilli()) }

// End says that the connection has ended. It is called once.
func (s *Session) End() {
	s.mu.Lock()
	ended := s.ended
	s.ended = true
	s.out, s.bad = nil, nil
	s.mu.Unlock()
	if ended {
		return
	}
	h := s.hub
	s.entity.mu.Lock()
	if s.entity.session == s {
		s.entity.session = nil
	}
	s.entity.mu.Unlock()
	s.setStream(nil)
	h.sessions.Add(-1)
	h.live.sessionChanged(s.entity, false, time.Now())
	h.logger.Info("device disconnected", "device", s.entity.id, "remote", s.remote)
	h.sessionEnded()
}

// setStream replaces the stream of the session. What was put for the old one is decided before it is let go.
func (s *Session) setStream(st *stream) {
	if s.stream != nil {
		s.hub.queue.release(s.hub.streams, s.stream)
	}
	s.stream = st
	s.ackOf.Store(st)
}

// committed is called by the committer after a commit that decided about batches of this session.
func (s *Session) committed() {
	s.durable.Store(true)
	s.peer.Wake()
}

// Next appends the next frame to write to dst and says how to send it. It reports false if there is nothing now; Wake is
// called when there is.
func (s *Session) Next(dst []byte) (frame []byte, f wire.Format, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return dst, s.format, false
	}
	if len(s.out) > 0 {
		dst = append(dst, s.out[0]...)
		s.out[0] = nil
		if s.out = s.out[1:]; len(s.out) == 0 {
			s.out = nil
		}
		return dst, s.format, true
	}
	if frame, ok := s.pauseLocked(dst); ok {
		return frame, s.format, true
	}
	if !s.durable.Swap(false) {
		return dst, s.format, false
	}
	st := s.ackOf.Load()
	if st == nil {
		return dst, s.format, false
	}
	ack := wire.Ack{Seq: st.durable.Load()}
	for len(s.bad) > 0 && len(ack.Bad) < wire.MaxBad && s.bad[0].Seq <= ack.Seq {
		ack.Bad = append(ack.Bad, s.bad[0])
		s.bad = s.bad[1:]
	}
	if len(s.bad) == 0 {
		s.bad = nil
	} else if s.bad[0].Seq <= ack.Seq {
		s.durable.Store(true)
	}
	return wire.AppendAck(dst, s.format, &ack), s.format, true
}

// send queues a control message.
func (s *Session) send(frame []byte) error {
	s.mu.Lock()
	if len(s.out) >= maxControl {
		s.mu.Unlock()
		return fmt.Errorf("%d answers wait to be read: %w", maxControl, errTooFast)
	}
	s.out = append(s.out, frame)
	s.mu.Unlock()
	s.peer.Wake()
	return nil
}

// greet queues the welcome.
func (s *Session) greet(frame []byte) error {
	s.mu.Lock()
	s.greeted = true // before the welcome can be sent, since that makes the writer look for more
	s.mu.Unlock()
	return s.send(frame)
}

// Errors of Receive that CloseCodeOf knows besides those of package wire.
var (
	errTooFast = errors.New("too fast")
	errWho     = errors.New("the hello names another device than the token")
	errBye     = errors.New("the device said goodbye")
)

// CloseCodeOf returns the close code and the reason for an error of Receive or Connect.
func CloseCodeOf(err error) (wire.CloseCode, string) {
	var bad *BadInput
	code := wire.CloseDraining
	switch {
	case errors.Is(err, errTooFast):
		code = wire.CloseTooFast
	case errors.Is(err, errWho), errors.Is(err, ErrUnknownDevice):
		code = wire.CloseWho
	case errors.Is(err, wire.ErrTooBig):
		code = wire.CloseTooBig
	case errors.Is(err, wire.ErrProtocol):
		code = wire.CloseProtocol
	case errors.As(err, &bad):
		if code = wire.CloseProtocol; bad.Code == "rate" {
			code = wire.CloseTooFast
		}
	case errors.Is(err, errBye):
		return 1000, "bye"
	default:
		return code, code.Reason()
	}
	return code, clip(err.Error(), 123)
}

// clip shortens s to n bytes without cutting a rune.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
