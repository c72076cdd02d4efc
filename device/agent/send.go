package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/spool"
	"telemetryhub/device/wire"
)

// sender is the writing side of a session.
type sender struct {
	*session
	known []byte // the birth that the hub reads data by, nil if none
	rec   spool.Record
	frame []byte // of rec, empty if there is none
	done  bool   // the stream has no more records

	clockDue time.Time // when the time is asked for again; zero if never
}

// send writes until ctx ends or something fails.
func (s *session) send(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.begun:
	}
	w := sender{session: s}
	if s.knows(s.birth) {
		w.known = s.birth
	}
	if s.a.opts.Clock != nil && slices.Contains(s.welcome.Caps, wire.CapTime) {
		w.clockDue = time.Now()
	}
	if err := w.sendState(); err != nil {
		return err
	}
	for {
		wait, err := w.step()
		if err != nil {
			return err
		}
		if wait < 0 {
			continue
		}
		if err := w.wait(ctx, wait); err != nil {
			return err
		}
	}
}

// step sends what can be sent at once, answers first. It returns how long to wait at most before the next step, zero for
// until something happens, negative for not at all.
func (w *sender) step() (time.Duration, error) {
	select {
	case reply := <-w.replies:
		return -1, w.write(reply)
	case <-w.askClock:
		return -1, w.sendTime()
	default:
	}
	if !w.clockDue.IsZero() && !time.Now().Before(w.clockDue) {
		w.clockDue = time.Now().Add(clockEvery)
		return -1, w.sendTime()
	}
	if frame := w.a.notices.next(); frame != nil {
		return -1, w.write(frame)
	}
	if len(w.frame) == 0 && !w.done {
		if err := w.fetch(); err != nil {
			return 0, err
		}
	}
	if w.done && w.a.credit.idle() {
		return 0, errNextStream
	}
	if len(w.frame) == 0 {
		return 0, nil
	}
	ok, retry := w.a.credit.admit(len(w.frame))
	if !ok {
		return retry, nil
	}
	return -1, w.sendRecord()
}

// wait waits for a record, an ack, an answer to send, or the time.
func (w *sender) wait(ctx context.Context, d time.Duration) error {
	ready := w.a.spool.Ready()
	if len(w.frame) > 0 || w.done {
		ready = nil
	}
	var timer <-chan time.Time
	if !w.clockDue.IsZero() {
		if due := max(time.Until(w.clockDue), time.Millisecond); d == 0 || due < d {
			d = due
		}
	}
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-ready:
	case <-w.a.credit.wake:
	case <-timer:
	}
	return nil
}

// fetch takes the next record of the spool and makes its frame.
func (w *sender) fetch() error {
	rec, ok, err := w.reader.Next()
	if errors.Is(err, io.EOF) {
		w.done = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("read spool: %w", err)
	}
	if !ok {
		return nil
	}
	if rec.Seq > wire.MaxSeq {
		return fmt.Errorf("the stream %s has no more numbers", w.stream)
	}
	w.rec = rec
	w.frame = w.frame[:0]
	if rec.Kind == spool.Gap {
		w.frame = wire.AppendGap(w.frame, wire.CBOR, &rec.Gap)
		return nil
	}
	frame, err := renumber(w.frame, restate(rec.Body, w.a.opts.Clock, time.Now()), rec.Seq)
	if err == nil && len(frame) > int(w.welcome.Limits.Max) {
		err = fmt.Errorf("%w: %d bytes, the hub takes %d", wire.ErrTooBig, len(frame), w.welcome.Limits.Max)
	}
	if err == nil && rec.Context == nil {
		err = errors.New("it has no schema")
	}
	if err != nil { // what cannot be sent takes its number as a gap
		w.a.log.Error("a spooled batch cannot be sent and is reported as lost", "seq", rec.Seq, "err", err)
		g := device.Gap{Seq: rec.Seq, Count: uint64(rec.Count), FromMS: rec.FromMS, ToMS: rec.ToMS, Cause: device.CauseOther}
		w.rec.Context = nil
		frame = wire.AppendGap(w.frame[:0], wire.CBOR, &g)
	}
	w.frame = frame
	return nil
}

// sendRecord sends the frame, after the birth that it needs.
func (w *sender) sendRecord() error {
	if !w.reader.Sending() {
		w.frame = w.frame[:0] // dropped meanwhile
		return nil
	}
	if err := w.sendBirth(w.rec.Context); err != nil {
		return err
	}
	w.a.credit.add(sent{seq: w.rec.Seq, size: len(w.frame), count: w.rec.Count})
	w.a.stats.sent.Add(uint64(w.rec.Count))
	w.a.stats.batches.Add(1)
	err := w.write(w.frame)
	w.frame = w.frame[:0]
	return err
}

// sendBirth sends the birth unless it is the one that the hub reads data by already.
func (w *sender) sendBirth(birth []byte) error {
	if birth == nil || &birth[0] == firstByte(w.known) {
		return nil
	}
	if !bytes.Equal(birth, w.known) {
		if err := w.write(birth); err != nil {
			return err
		}
	}
	w.known = birth
	return nil
}

func firstByte(b []byte) *byte {
	if len(b) == 0 {
		return nil
	}
	return &b[0]
}

// sendState shows the newest values at once when there is a backlog before them.
func (w *sender) sendState() error {
	if !w.hasState() || w.a.spool.Status().Waiting < 2 {
		return nil
	}
	w.a.in.Lock()
	schema := w.a.batch.schema
	var b device.Batch
	q := w.a.opts.Clock.Quality()
	for _, n := range w.a.batch.newest {
		r := n.row
		if q = w.a.stamp(&r, n.at); q == device.ClockNone && !n.at.IsZero() {
			r.TimeMS = -time.Since(n.at).Milliseconds()
		}
		r.Values = append([]device.Value(nil), r.Values...)
		b.Rows = append(b.Rows, r)
	}
	w.a.in.Unlock()
	if len(b.Rows) == 0 {
		return nil
	}
	for i := range b.Rows {
		if i == 0 || b.Rows[i].TimeMS > b.BaseMS {
			b.BaseMS = b.Rows[i].TimeMS
		}
	}
	frame, err := wire.AppendState(nil, wire.CBOR, schema.index, &b, wire.ClockFlag(q))
	if err != nil || len(frame) > int(w.welcome.Limits.Max) {
		return nil // too large to be shown, or too far apart in time: the data come anyway
	}
	if err := w.sendBirth(schema.birth); err != nil {
		return err
	}
	return w.write(frame)
}

func (w *sender) sendTime() error {
	return w.write(wire.AppendTime(nil, wire.CBOR, &wire.Time{T0: w.a.opts.Clock.own(time.Now())}))
}

func (w *sender) write(frame []byte) error {
	if err := w.conn.Write(wire.CBOR, frame); err != nil {
		return fmt.Errorf("%w: %w", errWrite, err)
	}
	return nil
}
