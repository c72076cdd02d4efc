package hub

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/storage/record"
)

// workbench is the memory that decoding one frame needs. It is pooled, so that idle connections have none.
type workbench struct {
	wire.Decoder
	batch   device.Batch
	rows    []device.Row // of what was sent by name
	body    []byte
	refused []byte
}

var benches = sync.Pool{New: func() any { return new(workbench) }}

// Receive takes one frame: text is JSON, binary is CBOR. It waits while the hub cannot take more, so that TCP pushes back.
// frame is not kept. An error ends the session: CloseCodeOf says how to close.
func (s *Session) Receive(ctx context.Context, f wire.Format, frame []byte) error {
	s.Alive()
	return s.hub.workers.do(task{s, ctx, f, frame})
}

// take takes one frame, on the goroutine of a worker.
func (s *Session) take(ctx context.Context, f wire.Format, frame []byte) error {
	t, err := wire.Peek(f, frame)
	if err != nil {
		return err
	}
	switch t {
	case wire.TypeData:
		return s.receiveData(ctx, f, frame)
	case wire.TypeHello:
		return s.receiveHello(ctx, f, frame)
	case wire.TypeBirth:
		return s.receiveBirth(ctx, f, frame)
	case wire.TypeGap:
		return s.receiveGap(ctx, f, frame)
	case wire.TypeState:
		return s.receiveState(f, frame)
	case wire.TypeTime:
		return s.receiveTime(f, frame)
	case wire.TypeEvent:
		return s.receiveEvent(f, frame)
	case wire.TypeResult, wire.TypeCfgr:
		return nil // the hub has asked for none
	case wire.TypeErr:
		return s.receiveErr(f, frame)
	case wire.TypeBye:
		return errBye
	}
	if t.Loose() {
		return s.receiveLoose(ctx, f, frame)
	}
	return s.sendErr("unknown", "this hub does not know this message, it was ignored")
}

func (s *Session) sendErr(code, text string) error {
	return s.send(wire.AppendErr(nil, s.format, &wire.Err{Code: code, Msg: text}))
}

// admit holds a device to its limits. A numbered batch beyond them is an error, since the device knows them. What has no
// number gets no ack to count by: its sender waits until the hub has decided about enough of it.
func (s *Session) admit(ctx context.Context, seq uint64, size int) error {
	frames, bytes := s.frames.Add(1), s.bytes.Add(int64(size))
	if frames == 1 {
		return nil
	}
	o := &s.hub.options
	for frames > int64(o.Window) || bytes > int64(o.WindowBytes) {
		if seq > 0 {
			return fmt.Errorf("%w: more than %d batches or %d bytes without an ack", errTooFast, o.Window, o.WindowBytes)
		}
		select {
		case <-s.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		frames, bytes = s.frames.Load(), s.bytes.Load()
	}
	return nil
}

// decided undoes admit.
func (s *Session) decided(size int) {
	s.bytes.Add(int64(-size))
	s.frames.Add(-1)
	signal(s.room)
}

func (s *Session) receiveHello(ctx context.Context, f wire.Format, frame []byte) error {
	h, err := wire.DecodeHello(f, frame)
	if err != nil {
		return err
	}
	if s.begun {
		return fmt.Errorf("%w: hello comes once, and before any data: connect again to begin another stream", wire.ErrProtocol)
	}
	s.begun = true
	e := s.entity
	if h.Device != "" && h.Device != e.id {
		return fmt.Errorf("%w: it says %q, the token is for %q", errWho, h.Device, e.id)
	}
	s.clock = h.Clock
	w := wire.Welcome{
		NowMS:  time.Now().UnixMilli(),
		Limits: wire.Limits{Win: uint32(s.hub.options.Window), Bytes: uint32(s.hub.options.WindowBytes), Max: wire.MaxFrame},
		PingS:  uint32(s.hub.options.Ping / time.Second),
		Caps:   []string{wire.CapTime, wire.CapState},
	}
	var st *stream
	if h.Stream != "" {
		if st, err = s.attach(ctx, h); err != nil {
			return err
		}
		w.Ack = st.durable.Load()
	}
	s.setStream(st)
	s.index = nil
	if h.Schema != "" {
		if w.Schema, err = s.useSchema(ctx, h.Schema); err != nil {
			return err
		}
	}
	e.describe(h.Firmware, h.Model)
	return s.greet(wire.AppendWelcome(nil, s.format, &w))
}

// attach returns the stream that a hello names.
func (s *Session) attach(ctx context.Context, h wire.Hello) (*stream, error) {
	s.entity.mu.Lock()
	defer s.entity.mu.Unlock()
	return s.hub.streams.attach(ctx, s.entity, h.Stream, h.Have)
}

// useSchema takes up a schema that the hub knows, or asks for it.
func (s *Session) useSchema(ctx context.Context, id string) (string, error) {
	e := s.entity
	e.mu.Lock()
	defer e.mu.Unlock()
	b, err := e.bookLocked(ctx, s.hub.registry)
	if err != nil {
		return "", err
	}
	known := b.byID(id)
	if known == nil {
		return wire.SchemaNeed, nil
	}
	if s.index, err = s.hub.registry.schemas.index(known); err != nil {
		return wire.SchemaNeed, nil
	}
	return wire.SchemaOK, nil
}

func (s *Session) receiveBirth(ctx context.Context, f wire.Format, frame []byte) error {
	declared, err := wire.DecodeBirth(f, frame)
	if err != nil {
		return err
	}
	schema, err := s.entity.register(ctx, s.hub.registry, declared)
	if err != nil {
		return err
	}
	s.index, err = s.hub.registry.schemas.index(schema)
	return err
}

func (s *Session) receiveData(ctx context.Context, f wire.Format, frame []byte) error {
	if s.index == nil {
		return fmt.Errorf("%w: data before a birth: send a hello that names a known schema, or a birth", wire.ErrProtocol)
	}
	s.begun = true
	b := benches.Get().(*workbench)
	e, err := s.dataEntry(ctx, f, frame, b)
	if err != nil {
		benches.Put(b)
		return err
	}
	return s.hub.queue.submit(ctx, e, b)
}

// dataEntry decodes a batch into b and prepares its entry for the queue.
func (s *Session) dataEntry(ctx context.Context, f wire.Format, frame []byte, b *workbench) (e entry, err error) {
	flags, bad, err := b.Data(f, frame, s.index, &b.batch)
	if err != nil {
		return e, err
	}
	if err := s.admit(ctx, b.batch.Seq, len(frame)); err != nil {
		return e, err
	}
	now := time.Now().UnixMilli()
	e = entry{session: s, frame: len(frame), head: record.Header{
		Kind: record.Data, TimeQuality: flags.Clock(s.clock), Device: s.entity.num, Seq: b.batch.Seq, ArrivalMS: now,
	}}
	if b.batch.Seq > 0 {
		if s.stream == nil {
			return e, fmt.Errorf("%w: a batch with a number before a hello with a stream", wire.ErrProtocol)
		}
		e.stream, e.head.Stream = s.stream, s.stream.key.num
	}
	wire.Resolve(&b.batch, now)
	if len(bad) > 0 {
		s.noteBad(bad)
	}
	b.refused = b.refused[:0]
	if lost := refusedGap(bad, &b.batch, now); lost.Count > 0 {
		b.refused = record.AppendGap(b.refused, &lost)
		s.hub.stats.refused.Add(lost.Count)
	}
	e.readings, e.firstMS, e.lastMS, e.head.TimeReplaced = survey(b.batch.Rows, now)
	b.body = record.AppendRows(b.body[:0], s.index.Schema(), now, b.batch.BaseMS, b.batch.Rows)
	return e, nil
}

// submit puts an entry whose bodies b holds, and gives b back to the pool. An entry that must wait keeps its bodies only: what
// decoding needs is up to fifty times as much, and on a full disk every device may have one that waits.
func (q *queue) submit(ctx context.Context, e entry, b *workbench) error {
	if done, err := q.try(e, b.body, b.refused); done {
		benches.Put(b)
		return err
	}
	body, refused := bytes.Clone(b.body), bytes.Clone(b.refused)
	benches.Put(b)
	return q.put(ctx, e, body, refused)
}

// survey returns how many readings the rows hold, the filed times of the earliest and the latest, and whether a time had
// to be replaced.
func survey(rows []device.Row, nowMS int64) (readings int, firstMS, lastMS int64, replaced bool) {
	for i := range rows {
		at, ok := device.Filed(rows[i].TimeMS, nowMS)
		replaced = replaced || !ok
		if i == 0 {
			firstMS, lastMS = at, at
		}
		firstMS, lastMS = min(firstMS, at), max(lastMS, at)
		for j := range rows[i].Values {
			if rows[i].Values[j].Type != device.Absent {
				readings++
			}
		}
	}
	return readings, firstMS, lastMS, replaced
}

// refusedGap says what of a batch was refused. Its times are those of the rows that stand, since refused ones have none
// that can be believed.
func refusedGap(bad []wire.Bad, b *device.Batch, nowMS int64) device.Gap {
	if len(bad) == 0 {
		return device.Gap{}
	}
	g := device.Gap{FromSeq: b.Seq, ToSeq: b.Seq, Cause: device.CauseRefused}
	for i := range bad {
		g.Count += uint64(bad[i].Count)
	}
	if _, g.FromMS, g.ToMS, _ = survey(b.Rows, nowMS); len(b.Rows) == 0 {
		g.FromMS, _ = device.Filed(b.BaseMS, nowMS)
		g.ToMS = g.FromMS
	}
	return g
}

// noteBad keeps what the next acks must tell, within bounds.
func (s *Session) noteBad(bad []wire.Bad) {
	const most = 4 * wire.MaxBad
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range bad {
		if b.Seq == 0 {
			continue // not acked, so there is no ack to tell it
		}
		if len(s.bad) >= most {
			last := &s.bad[most-1]
			last.Seq, last.Code, last.Value = b.Seq, wire.BadMore, 0
			last.Count += b.Count
			continue
		}
		s.bad = append(s.bad, b)
	}
}

func (s *Session) receiveGap(ctx context.Context, f wire.Format, frame []byte) error {
	g, err := wire.DecodeGap(f, frame)
	if err != nil {
		return err
	}
	if s.stream == nil || g.Seq == 0 {
		return fmt.Errorf("%w: a gap needs a number and a hello with a stream before it", wire.ErrProtocol)
	}
	if err := s.admit(ctx, g.Seq, len(frame)); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	b := benches.Get().(*workbench)
	defer benches.Put(b)
	b.body = record.AppendGap(b.body[:0], &g)
	e := entry{session: s, frame: len(frame), stream: s.stream, firstMS: g.FromMS, lastMS: g.ToMS, head: record.Header{
		Kind: record.Gap, TimeQuality: s.clock, Device: s.entity.num, Stream: s.stream.key.num, Seq: g.Seq, ArrivalMS: now,
	}}
	return s.hub.queue.put(ctx, e, b.body, nil)
}

func (s *Session) receiveTime(f wire.Format, frame []byte) error {
	arrived := time.Now().UnixMilli()
	m, err := wire.DecodeTime(f, frame)
	if err != nil {
		return err
	}
	return s.send(wire.AppendTime(nil, s.format, &wire.Time{T0: m.T0, T1: arrived, T2: time.Now().UnixMilli()}))
}

// receiveState shows the newest values of a device that still has a backlog to send. They are not stored.
func (s *Session) receiveState(f wire.Format, frame []byte) error {
	if s.index == nil {
		return fmt.Errorf("%w: state before a birth", wire.ErrProtocol)
	}
	b := benches.Get().(*workbench)
	defer benches.Put(b)
	_, bad, err := b.State(f, frame, s.index, &b.batch)
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		s.hub.logger.Debug("state with refused rows", "device", s.entity.id, "rows", len(bad), "code", bad[0].Code.String())
	}
	now := time.Now().UnixMilli()
	wire.Resolve(&b.batch, now)
	s.hub.live.state(s.entity, s.index.Schema(), b.batch.Rows, now)
	return nil
}

func (s *Session) receiveEvent(f wire.Format, frame []byte) error {
	ev, err := wire.DecodeEvent(f, frame)
	if err != nil {
		return err
	}
	if s.entity.noteEvent(ev, time.Now().UnixMilli()) {
		s.hub.logger.Info("device event", "device", s.entity.id, "level", ev.Level, "event", ev.Code, "text", ev.Msg)
	}
	return nil
}

func (s *Session) receiveErr(f wire.Format, frame []byte) error {
	m, err := wire.DecodeErr(f, frame)
	if err != nil {
		return err
	}
	s.hub.logger.Warn("the device did not understand the hub", "device", s.entity.id, "event", m.Code, "text", m.Msg)
	return nil
}
