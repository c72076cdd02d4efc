package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
	"telemetryhub/storage/record"
)

// Schemas tells what a device declared.
type Schemas interface {
	// Schema returns a registered schema: the numbers of its metrics and sets are filled. It is immutable; the
	// implementer keeps it at hand, so that asking again costs little. An error that wraps storage.ErrNotFound or
	// storage.ErrCorrupt means that nobody will ever know it.
	Schema(ctx context.Context, deviceNum, schemaNum uint32) (*device.Schema, error)
}

// applier is what Apply needs from one group to the next.
type applier struct {
	rows record.Rows
	// pos and done say how many records of a group are applied already, if the last call failed in its middle.
	pos  storage.Position
	done int
	// arrivalMS is the arrival of the last record. lossMS is the one before a loss whose end is not yet known, or zero.
	arrivalMS, lossMS int64
}

// Apply takes the next group of the log. It has one caller at a time and must get the groups in order, from the first
// one after [Store.Checkpoint] on; a group that it had already is passed over. It keeps nothing of group.
//
// It fails with storage.ErrFull, having taken nothing, when the heads have reached Options.MaxBytes: a [Store.Flush]
// must succeed first. It fails with storage.ErrNewerFormat for a group of a newer version, and with the error of
// [Schemas]; the same group may then be given again.
//
// What is damaged inside a group is no error: it is counted, logged and recorded as a gap, and the rest is taken.
func (s *Store) Apply(ctx context.Context, pos storage.Position, group []byte) error {
	h := &s.heads
	h.turn.Lock()
	defer h.turn.Unlock()
	if ok, err := s.admit(pos); !ok {
		return err
	}
	r, err := record.Read(group)
	if errors.Is(err, storage.ErrNewerFormat) {
		return err
	}
	s.resume(pos)
	if err == nil {
		if err := s.applyRecords(ctx, &r, pos); err != nil {
			return err
		}
		err = r.Err()
	}
	if err != nil {
		return s.applyRest(ctx, pos, group, err)
	}
	s.finish(pos, len(group))
	return nil
}

// ApplyEntry does what [Store.Apply] does for an entry that was read from the log. Of a damaged one it takes the records
// whose own checksums hold and records a gap for the rest.
func (s *Store) ApplyEntry(ctx context.Context, e storage.Entry) error {
	if !e.Damaged {
		return s.Apply(ctx, e.Position, e.Group)
	}
	s.heads.turn.Lock()
	defer s.heads.turn.Unlock()
	if ok, err := s.admit(e.Position); !ok {
		return err
	}
	s.resume(e.Position)
	return s.applyRest(ctx, e.Position, e.Group, storage.ErrCorrupt)
}

// admit reports whether a group is to be taken.
func (s *Store) admit(pos storage.Position) (bool, error) {
	h := &s.heads
	h.mu.Lock()
	defer h.mu.Unlock()
	if pos <= h.applied {
		return false, nil
	}
	if n := h.usedLocked(); n >= s.o.MaxBytes {
		return false, fmt.Errorf("apply group %d: %w: %d bytes wait to be flushed to the history", pos, storage.ErrFull, n)
	}
	return true, nil
}

func (s *Store) resume(pos storage.Position) {
	if s.apply.pos != pos {
		s.apply.pos, s.apply.done = pos, 0
	}
}

// applyRecords applies the records that r yields, without those that are done already.
func (s *Store) applyRecords(ctx context.Context, r *record.Reader, pos storage.Position) error {
	for n := 0; r.Next(); n++ {
		if n < s.apply.done {
			continue
		}
		if err := s.applyRecord(ctx, pos, r.Record()); err != nil {
			return err
		}
		s.apply.done++
	}
	return nil
}

// applyRest applies what is readable in a group that is not intact.
func (s *Store) applyRest(ctx context.Context, pos storage.Position, group []byte, cause error) error {
	r := record.Salvage(group)
	if err := s.applyRecords(ctx, &r, pos); err != nil {
		return err
	}
	s.o.Logger.Error("log group is damaged: readings of unknown devices are lost", "position", pos, "err", cause)
	h := &s.heads
	h.mu.Lock()
	h.lost++
	at := s.apply.arrivalMS
	h.gapLocked(0, Gap{FromMS: at, ToMS: at, Cause: device.CauseDamaged})
	h.mu.Unlock()
	s.apply.lossMS = max(at, 1)
	s.finish(pos, len(group))
	return nil
}

// LogEnds says, at a start, that the log has been applied to its end. What is lost there had arrived by nowMS.
func (s *Store) LogEnds(nowMS int64) {
	h := &s.heads
	h.turn.Lock()
	defer h.turn.Unlock()
	if s.apply.lossMS == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gapLocked(0, Gap{FromMS: s.apply.lossMS, ToMS: max(nowMS, s.apply.lossMS), Cause: device.CauseDamaged})
	s.apply.lossMS = 0
}

// finish ends a group that is wholly applied.
func (s *Store) finish(pos storage.Position, size int) {
	h := &s.heads
	h.mu.Lock()
	defer h.mu.Unlock()
	h.applied = pos
	h.arrivalMS = s.apply.arrivalMS
	h.logBytes += int64(size)
	if h.since.IsZero() {
		h.since = time.Now()
	}
}

func (s *Store) applyRecord(ctx context.Context, pos storage.Position, rec *record.Record) error {
	if s.apply.lossMS != 0 {
		s.heads.mu.Lock()
		s.heads.gapLocked(0, Gap{FromMS: s.apply.lossMS, ToMS: rec.ArrivalMS, Cause: device.CauseDamaged})
		s.heads.mu.Unlock()
		s.apply.lossMS = 0
	}
	s.apply.arrivalMS = rec.ArrivalMS
	switch rec.Kind {
	case record.Data:
		return s.applyData(ctx, pos, rec)
	case record.Gap:
		s.applyGap(rec)
	}
	return nil
}

func (s *Store) applyData(ctx context.Context, pos storage.Position, rec *record.Record) error {
	h := &s.heads
	num := rec.Schema()
	h.mu.Lock()
	d := h.deviceLocked(rec.Device)
	if d == nil {
		h.mu.Unlock()
		return nil
	}
	p := d.plan(num)
	if p == nil {
		h.mu.Unlock()
		schema, err := s.schema(ctx, rec.Device, num)
		if err != nil && !errors.Is(err, errUnreadable) {
			return err
		}
		h.mu.Lock()
		if d = h.deviceLocked(rec.Device); d == nil { // dropped meanwhile
			h.mu.Unlock()
			return nil
		}
		if err != nil {
			s.loseLocked(rec, rec.ArrivalMS, err)
			h.mu.Unlock()
			return nil
		}
		p = d.remember(schema)
	}
	s.addRowsLocked(d, p, pos, rec)
	h.mu.Unlock()
	return nil
}

// errUnreadable marks what no later try will make readable.
var errUnreadable = errors.New("a record cannot be read")

// schema asks for a schema and checks that it can be used.
func (s *Store) schema(ctx context.Context, deviceNum, num uint32) (*device.Schema, error) {
	schema, err := s.schemas.Schema(ctx, deviceNum, num)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrCorrupt) {
		return nil, fmt.Errorf("%w: schema %d of device %d: %w", errUnreadable, num, deviceNum, err)
	}
	if err != nil {
		return nil, fmt.Errorf("schema %d of device %d: %w", num, deviceNum, err)
	}
	ok := schema.Num == num
	for i := range schema.Metrics {
		ok = ok && schema.Metrics[i].Num != 0
	}
	for i := range schema.Sets {
		ok = ok && schema.Sets[i].Num != 0 && len(schema.Sets[i].Metrics) <= chunk.MaxColumns
	}
	if !ok {
		return nil, fmt.Errorf("%w: schema %d of device %d is not a registered one", errUnreadable, num, deviceNum)
	}
	return schema, nil
}

// addRowsLocked adds the rows of a record to the heads.
func (s *Store) addRowsLocked(d *deviceHeads, p *plan, pos storage.Position, rec *record.Record) {
	part, rows := d.active, &s.apply.rows
	part.batches = append(part.batches, batch{
		first: part.next, quality: rec.TimeQuality, arrivalMS: rec.ArrivalMS, pos: pos,
	})
	grown := int64(batchBytes)
	var err error
	for rows.Reset(rec, p.schema); rows.Next(); part.next++ {
		row := rows.Row()
		filed, own := device.Filed(row.TimeMS, rec.ArrivalMS)
		i, ok := d.place(p, row.Ref)
		if _, fits := chunk.SliceOf(filed); !ok || !fits {
			err = errPlace
			continue
		}
		head, made := d.headLocked(i)
		bytes, whole := head.add(row, filed, !own, part.next, d.series[i].rows)
		grown += made + bytes
		if !whole {
			err = errText
		}
	}
	s.heads.growLocked(d, grown)
	if rows.Err() != nil {
		err = rows.Err()
	}
	if err != nil {
		s.loseLocked(rec, rows.Base(), err)
	}
}

var (
	errPlace = errors.New("a row contradicts the schema that earlier rows were written with, or its time is out of range")
	errText  = errors.New("a text is too long")
)

// loseLocked counts a record that could not be applied wholly and records a gap for it.
func (s *Store) loseLocked(rec *record.Record, baseMS int64, err error) {
	s.heads.lost++
	s.o.Logger.Error("a record of the log cannot be read: its readings are lost", "device", rec.Device, "stream", rec.Stream,
		"seq", rec.Seq, "err", err)
	g := device.Gap{FromSeq: rec.Seq, ToSeq: rec.Seq, FromMS: baseMS, ToMS: rec.ArrivalMS, Cause: device.CauseDamaged}
	s.heads.gapLocked(rec.Device, fileGap(&g, rec.Header))
}

func (s *Store) applyGap(rec *record.Record) {
	g, err := rec.Gap()
	s.heads.mu.Lock()
	defer s.heads.mu.Unlock()
	if err != nil {
		s.loseLocked(rec, rec.ArrivalMS, err)
		return
	}
	s.heads.gapLocked(rec.Device, fileGap(&g, rec.Header))
}
