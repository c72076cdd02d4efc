package agent_test

import (
	"context"
	"fmt"
	"sync"

	"telemetryhub/device"
	"telemetryhub/device/agent"
	"telemetryhub/device/wire"
)

// fakeHub is a small hub that keeps to PROTOCOL.md: it numbers, drops duplicates, notes jumps, acknowledges what it stored,
// and closes connections that break a rule.
type fakeHub struct {
	wg sync.WaitGroup // the sessions

	mu      sync.Mutex
	streams map[string]*hubStream
	order   []*hubStream
	schemas map[string]bool
	limits  wire.Limits
	gaps    []device.Gap
	states  int
	current *hubSession
	dials   int
	broken  []string // rules that the agent broke
	events  []wire.Event

	now    func() int64 // the hub's time; nil leaves times as they were sent
	timing bool         // the hub tells the time

	// Faults. Each may be nil.
	refuse  func(dial int) error      // instead of a connection
	onFrame func(s *hubSession) fate  // before a frame is handled
	onAck   func(s *hubSession) bool  // false: the ack is not sent
	onReady func(s *hubSession) error // after the welcome
}

// fate is what becomes of a frame.
type fate int

const (
	handled fate = iota
	cutBefore
	cutAfter
)

type hubStream struct {
	id     string
	last   uint64
	stored []record
}

// record is one batch as the hub stored it: the values of its first column, which the tests use as ids.
type record struct {
	seq  uint64
	ids  []float64
	rows []device.Row
	tq   device.TimeQuality
}

type hubSession struct {
	hub      *fakeHub
	pipe     *pipe
	stream   *hubStream
	index    *wire.Index
	dec      wire.Decoder
	frames   int // received
	inFlight int
	bytes    int
}

func newFakeHub() *fakeHub {
	return &fakeHub{
		streams: map[string]*hubStream{}, schemas: map[string]bool{},
		limits: wire.Limits{Win: 8, Bytes: 65536, Max: wire.MaxFrame},
	}
}

// dial is an agent.Dialer.
func (h *fakeHub) dial(context.Context) (agent.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dials++
	if h.refuse != nil {
		if err := h.refuse(h.dials); err != nil {
			return nil, err
		}
	}
	if h.current != nil { // the newest connection of a device wins
		h.current.pipe.finish(&agent.CloseError{Code: wire.CloseReplaced})
	}
	s := &hubSession{hub: h, pipe: newPipe()}
	h.current = s
	h.wg.Go(s.run)
	return s.pipe, nil
}

func (s *hubSession) run() {
	for {
		select {
		case <-s.pipe.cut:
			return
		case f := <-s.pipe.up:
			if !s.receive(f) {
				return
			}
		}
	}
}

// receive takes one frame and reports whether the session goes on.
func (s *hubSession) receive(f frame) bool {
	h := s.hub
	h.mu.Lock()
	s.frames++
	what := handled
	if h.onFrame != nil {
		what = h.onFrame(s)
	}
	if what == cutBefore {
		h.mu.Unlock()
		s.pipe.finish(errCut)
		return false
	}
	reply, err := s.take(f)
	if err != nil {
		h.broken = append(h.broken, err.Error())
	}
	h.mu.Unlock()
	switch {
	case what == cutAfter:
		s.pipe.finish(errCut)
		return false
	case err != nil:
		s.pipe.finish(&agent.CloseError{Code: wire.CloseFor(err)})
		return false
	}
	return reply == nil || s.pipe.send(reply)
}

func (s *hubSession) take(f frame) (reply []byte, err error) {
	t, err := wire.Peek(f.format, f.data)
	if err != nil {
		return nil, err
	}
	if s.stream == nil && t != wire.TypeHello {
		return nil, fmt.Errorf("%v before hello", t)
	}
	switch t {
	case wire.TypeHello:
		return s.hello(f)
	case wire.TypeBirth:
		schema, err := wire.DecodeBirth(f.format, f.data)
		if err != nil {
			return nil, err
		}
		s.hub.schemas[schema.ID+string(f.data)] = true
		s.index, err = wire.NewIndex(schema)
		return nil, err
	case wire.TypeState:
		if s.index == nil {
			return nil, fmt.Errorf("state before birth")
		}
		var b device.Batch
		_, bad, err := s.dec.State(f.format, f.data, s.index, &b)
		if err == nil && len(bad) > 0 {
			err = fmt.Errorf("state with bad rows: %+v", bad)
		}
		s.hub.states++
		return nil, err
	case wire.TypeData:
		return s.data(f)
	case wire.TypeTime:
		m, err := wire.DecodeTime(f.format, f.data)
		if err != nil || !s.hub.timing {
			return nil, fmt.Errorf("time: %v", err)
		}
		return wire.AppendTime(nil, wire.CBOR, &wire.Time{T0: m.T0, T1: s.hub.now(), T2: s.hub.now()}), nil
	case wire.TypeEvent:
		e, err := wire.DecodeEvent(f.format, f.data)
		s.hub.events = append(s.hub.events, e)
		return nil, err
	case wire.TypeGap:
		g, err := wire.DecodeGap(f.format, f.data)
		if err != nil {
			return nil, err
		}
		if s.number(g.Seq) {
			s.hub.gaps = append(s.hub.gaps, g)
		}
		return s.ack(g.Seq, len(f.data))
	}
	return nil, fmt.Errorf("the device sent %v", t)
}

func (s *hubSession) hello(f frame) ([]byte, error) {
	if s.stream != nil {
		return nil, fmt.Errorf("a second hello")
	}
	m, err := wire.DecodeHello(f.format, f.data)
	if err != nil {
		return nil, err
	}
	h := s.hub
	st := h.streams[m.Stream]
	if st == nil {
		st = &hubStream{id: m.Stream, last: m.Have - 1}
		h.streams[m.Stream] = st
		h.order = append(h.order, st)
	}
	s.stream = st
	w := wire.Welcome{NowMS: 1, Ack: st.last, Limits: h.limits, PingS: 25, Caps: []string{wire.CapState}}
	if h.timing {
		w.Caps = append(w.Caps, wire.CapTime)
	}
	if m.Schema != "" {
		w.Schema = wire.SchemaNeed
	}
	if h.onReady != nil {
		if err := h.onReady(s); err != nil {
			return nil, err
		}
		w.Ack, w.Limits = s.stream.last, h.limits
	}
	return wire.AppendWelcome(nil, wire.CBOR, &w), nil
}

func (s *hubSession) data(f frame) ([]byte, error) {
	if s.index == nil {
		return nil, fmt.Errorf("%w: data before birth", wire.ErrProtocol)
	}
	var b device.Batch
	flags, bad, err := s.dec.Data(f.format, f.data, s.index, &b)
	if err != nil {
		return nil, err
	}
	if len(bad) > 0 {
		return nil, fmt.Errorf("bad rows: %+v", bad)
	}
	if s.number(b.Seq) {
		rec := record{seq: b.Seq, tq: flags.Clock(device.ClockNTP)}
		if s.hub.now != nil {
			wire.Resolve(&b, s.hub.now())
		}
		for _, r := range b.Rows {
			r.Values = append([]device.Value(nil), r.Values...)
			rec.rows = append(rec.rows, r)
			rec.ids = append(rec.ids, r.Values[0].Float())
		}
		s.stream.stored = append(s.stream.stored, rec)
	}
	return s.ack(b.Seq, len(f.data))
}

// number applies the rules of section 8 and reports whether the record is new.
func (s *hubSession) number(seq uint64) bool {
	if seq <= s.stream.last {
		return false
	}
	if seq > s.stream.last+1 {
		s.hub.gaps = append(s.hub.gaps, device.Gap{FromSeq: s.stream.last + 1, ToSeq: seq - 1, Cause: device.CauseJump})
	}
	s.stream.last = seq
	return true
}

func (s *hubSession) ack(_ uint64, size int) ([]byte, error) {
	s.inFlight++
	s.bytes += size
	if s.inFlight > int(s.hub.limits.Win) || (s.inFlight > 1 && s.bytes > int(s.hub.limits.Bytes)) {
		return nil, fmt.Errorf("%d batches of %d bytes in flight", s.inFlight, s.bytes)
	}
	if s.hub.onAck != nil && !s.hub.onAck(s) {
		return nil, nil
	}
	s.inFlight, s.bytes = 0, 0
	return wire.AppendAck(nil, wire.CBOR, &wire.Ack{Seq: s.stream.last}), nil
}

// ids returns everything that is stored, in the order of streams and numbers.
func (h *fakeHub) ids() (ids []float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, st := range h.order {
		for _, r := range st.stored {
			ids = append(ids, r.ids...)
		}
	}
	return ids
}

// dialed returns how many connections were asked for.
func (h *fakeHub) dialed() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dials
}

// rules returns the first rule that the agent broke.
func (h *fakeHub) rules() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.broken) > 0 {
		return fmt.Errorf("the agent broke %d rules, the first: %s", len(h.broken), h.broken[0])
	}
	return nil
}

// push sends a frame of the hub's own to the connected device.
func (h *fakeHub) push(data []byte) bool {
	h.mu.Lock()
	s := h.current
	h.mu.Unlock()
	return s != nil && s.pipe.send(data)
}
