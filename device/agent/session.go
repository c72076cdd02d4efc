package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"telemetryhub/device/spool"
	"telemetryhub/device/wire"
)

// errWrite means that the connection took no more.
var errWrite = errors.New("send")

// errNextStream ends a session because the stream is finished or forked: another hello is needed to go on.
var errNextStream = errors.New("going on with another stream")

const (
	// maxReplies bounds the answers that wait to be sent. More come only from a hub that provokes them.
	maxReplies = 16
	// proven is how long a connection must have lasted to count as good even if nothing was acknowledged.
	proven = time.Minute
)

// session is one connection. run belongs to the reading side, send (in send.go) to the writing side.
type session struct {
	a       *Agent
	conn    Conn
	stream  string
	birth   []byte // of the schema that the hello named, nil without one
	replies chan []byte
	begun   chan struct{} // closed by the welcome; the fields below are valid after it

	askClock chan struct{} // has a value when the time is to be asked for

	welcome wire.Welcome
	reader  *spool.Reader
	since   time.Time

	// The fields below belong to the reading side until run has returned.
	clock exchange
	acked bool
	retry time.Duration // asked for by a bye
	bye   wire.CloseCode
}

func newSession(a *Agent) *session {
	return &session{a: a, replies: make(chan []byte, maxReplies), begun: make(chan struct{}), askClock: make(chan struct{}, 1)}
}

// progress reports whether the session was good for something.
func (s *session) progress() bool {
	return s.acked || (!s.since.IsZero() && time.Since(s.since) >= proven)
}

// run connects, and returns when the connection has ended and both sides are done.
func (s *session) run(ctx context.Context) error {
	dctx, cancel := context.WithTimeout(ctx, s.a.opts.Answer)
	conn, err := s.a.dial(dctx)
	cancel()
	if err != nil {
		var later *RetryError
		if errors.As(err, &later) {
			s.retry = later.After
		}
		return fmt.Errorf("connect: %w", err)
	}
	s.conn = conn
	conn.SetIdle(s.a.opts.Answer)
	if err := s.hello(); err != nil {
		conn.Close(CloseNormal)
		return errors.Join(err, conn.Serve(func(wire.Format, []byte) error { return nil })) // it may say why it closed
	}
	ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var sendErr error
	wg.Go(func() {
		if sendErr = s.send(ctx); errors.Is(sendErr, errWrite) {
			select { // the hub may have said why it closed: let that be read
			case <-ctx.Done():
			case <-time.After(closeTime):
			}
		}
		conn.Close(CloseNormal)
	})
	readErr := conn.Serve(s.handle)
	cancel()
	wg.Wait()
	if s.reader != nil {
		s.reader.Close()
	}
	return s.verdict(readErr, sendErr)
}

// verdict says why the session ended, given how both sides ended.
func (s *session) verdict(readErr, sendErr error) error {
	if s.bye >= 4500 && s.bye < 5000 {
		return &CloseError{Code: s.bye}
	}
	var closed *CloseError
	switch {
	case errors.As(readErr, &closed) && closed.Code >= 4000: // what the hub said counts most
		return readErr
	case sendErr != nil && !errors.Is(sendErr, context.Canceled):
		return sendErr
	case readErr == nil:
		return errors.New("the connection ended")
	}
	return readErr
}

func (s *session) hello() error {
	out := s.a.spool.Outgoing()
	s.stream = out.Stream
	h := wire.Hello{
		Device: s.a.opts.Device, Firmware: s.a.opts.Firmware, Model: s.a.opts.Model, Boot: s.a.opts.Boot,
		Stream: out.Stream, Next: out.Next, Have: out.Have, Clock: s.a.opts.Clock.Quality(), Caps: []string{wire.CapState},
	}
	s.a.in.Lock()
	if d := s.a.batch.schema; d != nil {
		h.Schema, s.birth = d.index.Schema().ID, d.birth
	}
	s.a.in.Unlock()
	if err := s.conn.Write(wire.CBOR, wire.AppendHello(nil, wire.CBOR, &h)); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	return nil
}

// handle takes one frame of the hub.
func (s *session) handle(f wire.Format, frame []byte) error {
	t, err := wire.Peek(f, frame)
	if err != nil {
		return err
	}
	switch t {
	case wire.TypeWelcome:
		return s.onWelcome(f, frame)
	case wire.TypeAck:
		return s.onAck(f, frame)
	case wire.TypeSlow:
		return s.onSlow(f, frame)
	case wire.TypeBye:
		if b, err := wire.DecodeBye(f, frame); err == nil {
			s.bye, s.retry = b.Code, time.Duration(b.RetryMS)*time.Millisecond
		}
		return nil
	case wire.TypeErr:
		if e, err := wire.DecodeErr(f, frame); err == nil {
			s.a.log.Warn("the hub did not accept a message", "code", e.Code, "re", e.Re, "msg", e.Msg)
		}
		return nil
	case wire.TypeTime:
		s.onTime(f, frame)
		return nil
	}
	s.reply(t.String())
	return nil
}

// reply tells the hub that a message is unknown here. When too many answers wait it is left out.
func (s *session) reply(re string) {
	e := wire.Err{Code: wire.ErrCodeUnknown, Re: re, Msg: "this device does not know that message"}
	select {
	case s.replies <- wire.AppendErr(nil, wire.CBOR, &e):
		s.a.credit.signal()
	default:
	}
}

func (s *session) onWelcome(f wire.Format, frame []byte) error {
	if s.reader != nil {
		return fmt.Errorf("%w: a second welcome", wire.ErrProtocol)
	}
	w, err := wire.DecodeWelcome(f, frame)
	if err != nil {
		return err
	}
	r, err := s.a.spool.Resume(s.stream, w.Ack)
	if errors.Is(err, spool.ErrForked) || errors.Is(err, spool.ErrStream) {
		return fmt.Errorf("%w: %w", errNextStream, err)
	}
	if err != nil {
		return err
	}
	s.conn.SetIdle(time.Duration(min(w.PingS, 86400)) * time.Second * 5 / 2)
	s.welcome, s.reader, s.since = w, r, time.Now()
	s.a.maxFrame.Store(w.Limits.Max)
	s.a.stats.acked.Add(s.a.credit.begin(s.stream, w.Ack, w.Limits))
	s.a.stats.connects.Add(1)
	s.a.setState(true, nil)
	s.a.log.Info("connected", "stream", s.stream, "ack", w.Ack)
	close(s.begun)
	return nil
}

func (s *session) onAck(f wire.Format, frame []byte) error {
	a, err := wire.DecodeAck(f, frame)
	if err != nil {
		return err
	}
	if s.reader == nil {
		return fmt.Errorf("%w: an ack before the welcome", wire.ErrProtocol)
	}
	if err := s.a.spool.Ack(s.stream, a.Seq); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrProtocol, err)
	}
	s.acked = true
	s.a.stats.acked.Add(s.a.credit.settle(&a))
	for _, b := range a.Bad {
		s.a.stats.refused.Add(uint64(b.Count))
		s.a.log.Warn("the hub refused readings", "seq", b.Seq, "row", b.Row, "value", b.Value, "count", b.Count, "code", b.Code)
	}
	s.a.notify()
	return nil
}

func (s *session) onSlow(f wire.Format, frame []byte) error {
	sl, err := wire.DecodeSlow(f, frame)
	if err != nil {
		s.reply(wire.TypeSlow.String())
		return nil
	}
	s.a.credit.slowDown(sl)
	s.a.log.Info("the hub asks for less", "win", sl.Win, "bytes", sl.Bytes, "for_ms", sl.ForMS, "why", sl.Why)
	return nil
}

// onTime takes an answer about the time, and asks again until there are enough.
func (s *session) onTime(f wire.Format, frame []byte) {
	m, err := wire.DecodeTime(f, frame)
	c := s.a.opts.Clock
	if err != nil || c == nil || m.T0 == 0 {
		return
	}
	if !s.clock.add(m.T0, m.T1, m.T2, c.own(time.Now())) {
		s.askTime()
		return
	}
	if c.setByHub(s.clock.ahead) {
		s.a.log.Info("the clock was set by the hub", "ahead", s.clock.ahead, "round_trip", s.clock.best)
	}
	s.clock = exchange{}
}

// askTime has the sender ask the hub what time it is.
func (s *session) askTime() {
	select {
	case s.askClock <- struct{}{}:
		s.a.credit.signal()
	default:
	}
}

// hasState reports whether the hub shows state messages.
func (s *session) hasState() bool { return slices.Contains(s.welcome.Caps, wire.CapState) }

// knows reports whether the hub has the schema with this birth from the hello.
func (s *session) knows(birth []byte) bool {
	return s.welcome.Schema == wire.SchemaOK && bytes.Equal(birth, s.birth)
}
