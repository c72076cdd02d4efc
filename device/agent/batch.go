package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/spool"
	"telemetryhub/device/wire"
)

// batch is the one that is being filled. Agent.in guards it.
type batch struct {
	schema   *declared // nil before Declare
	rows     []device.Row
	values   []device.Value // what rows hold
	readings int
	bytes    int // the most that the frame can take
	from, to int64
	since    time.Time // when the first row came
	clock    device.TimeQuality
	first    time.Time // when the first row was read, zero if its time is the caller's
	// singleFrom and singleTo bound the times of rows of single metrics. In a frame those come behind the rows of sets, and
	// the later row of equal time wins; so a set's row must not follow a single one of its time in one batch.
	singleFrom, singleTo int64

	newest map[device.Ref]newest // of the schema, for the state after an outage
	frame  []byte
}

// newest is the newest row of a set or metric, and when it was read; zero if its time is the caller's.
type newest struct {
	row device.Row
	at  time.Time
}

const emptyFrame = 48 // array heads, number, base time, flags, mark

func (b *batch) reset() {
	clear(b.values)
	b.rows, b.values, b.readings, b.bytes = b.rows[:0], b.values[:0], 0, emptyFrame
	b.singleFrom, b.singleTo = 1, 0
}

// fits reports whether the row can join the batch.
func (b *batch) fits(r *device.Row, at time.Time, q device.TimeQuality, bytes, maxRows, maxBytes int) bool {
	if len(b.rows) == 0 {
		return true
	}
	_, single := r.Ref.Single()
	return q == b.clock && at.IsZero() == b.first.IsZero() && len(b.rows) < maxRows && b.bytes+bytes <= maxBytes &&
		max(b.to, r.TimeMS)-min(b.from, r.TimeMS) <= device.MaxSpanMS &&
		(single || r.TimeMS < b.singleFrom || r.TimeMS > b.singleTo)
}

func (b *batch) add(r *device.Row, at time.Time, q device.TimeQuality, readings, bytes int) {
	if len(b.rows) == 0 {
		b.from, b.to, b.since, b.clock, b.first = r.TimeMS, r.TimeMS, time.Now(), q, at
	}
	b.from, b.to = min(b.from, r.TimeMS), max(b.to, r.TimeMS)
	if _, single := r.Ref.Single(); single {
		if b.singleFrom > b.singleTo {
			b.singleFrom, b.singleTo = r.TimeMS, r.TimeMS
		}
		b.singleFrom, b.singleTo = min(b.singleFrom, r.TimeMS), max(b.singleTo, r.TimeMS)
	}
	n := len(b.values)
	b.values = append(b.values, r.Values...)
	kept := *r
	kept.Values = b.values[n:len(b.values):len(b.values)]
	b.rows = append(b.rows, kept)
	b.readings += readings
	b.bytes += bytes
	old, known := b.newest[r.Ref]
	if !known || r.TimeMS >= old.row.TimeMS || at.After(old.at) {
		kept.Values = append(old.row.Values[:0], r.Values...)
		b.newest[r.Ref] = newest{kept, at}
	}
}

// Declare sets the schema of the rows that follow. Rows before it keep theirs. The ID may be empty: it is then made from the
// content. The error says which rule of package wire the schema breaks, or is one of spool.Append.
func (a *Agent) Declare(s *device.Schema) error {
	d, err := declare(s)
	if err != nil {
		return err
	}
	a.in.Lock()
	defer a.in.Unlock()
	if err := a.closeBatch(); err != nil {
		return err
	}
	if err := a.spool.SetContext(d.birth); err != nil {
		return fmt.Errorf("declare: %w", err)
	}
	a.batch.schema, a.batch.newest = d, make(map[device.Ref]newest)
	return nil
}

// Append takes rows, in order; they are copied. They go to the spool when the batch is full or old enough, and count as kept
// only when they are durable there: see Flush. Closing a batch can wait for the disk, so a sampler that must keep time has a
// queue of its own in front. If one row does not fit the schema the error wraps ErrRow, and none is taken.
// With a spool that refuses when full Append waits for room, until ctx ends or Run has returned; the rows before the one that
// had no room are then taken.
func (a *Agent) Append(ctx context.Context, rows ...device.Row) error {
	return a.append(ctx, time.Time{}, rows)
}

// Sample is Append for rows that were read at a moment, which must come from time.Now of this process. It stamps them by the
// clock of the device; their TimeMS is not looked at. If the time is not known yet they are restated when they are sent.
func (a *Agent) Sample(ctx context.Context, at time.Time, rows ...device.Row) error {
	stamped := slices.Clone(rows)
	return a.append(ctx, at, stamped)
}

// stamp returns the row with its time, and how far that can be trusted.
func (a *Agent) stamp(r *device.Row, at time.Time) device.TimeQuality {
	if at.IsZero() {
		return a.opts.Clock.Quality()
	}
	var q device.TimeQuality
	r.TimeMS, q = a.opts.Clock.At(at)
	return q
}

// append takes rows that were read at a moment, or whose times are the caller's if that is zero.
func (a *Agent) append(ctx context.Context, at time.Time, rows []device.Row) error {
	a.in.Lock()
	defer a.in.Unlock()
	if a.batch.schema == nil {
		return ErrNoSchema
	}
	maxBytes := min(a.opts.MaxBytes, int(a.maxFrame.Load())-frameRoom)
	for i := range rows {
		a.stamp(&rows[i], at)
		_, bytes, err := a.batch.schema.measure(&rows[i])
		if err == nil && emptyFrame+bytes > wire.MaxFrame-frameRoom {
			err = fmt.Errorf("%w: %d bytes are more than a frame can hold", ErrRow, bytes)
		}
		if err != nil {
			return fmt.Errorf("row %d: %w", i, err)
		}
	}
	schema := a.batch.schema
	for i := range rows {
		r := &rows[i]
		readings, bytes, err := schema.measure(r)
		if err != nil {
			return fmt.Errorf("row %d: %w", i, err) // the caller changed it meanwhile
		}
		q := a.stamp(r, at)
		for !a.batch.fits(r, at, q, bytes, a.opts.MaxRows, maxBytes) {
			if err := a.closeBatchWaiting(ctx); err != nil {
				return err
			}
			if a.batch.schema != schema {
				return fmt.Errorf("row %d: %w: another schema was declared meanwhile", i, ErrRow)
			}
			q = a.stamp(r, at) // the wait may have been long, and the clock set
		}
		a.batch.add(r, at, q, readings, bytes)
		a.stats.appended.Add(uint64(readings))
	}
	return nil
}

// Flush makes everything durable that was appended. In the spool's RAM mode it returns why that is not possible.
func (a *Agent) Flush(ctx context.Context) error {
	a.in.Lock()
	err := a.closeBatchWaiting(ctx)
	a.in.Unlock()
	if err != nil {
		return err
	}
	return a.spool.Sync()
}

// closeBatchWaiting closes the batch, waiting for room in the spool. The caller holds a.in, which is let go meanwhile.
func (a *Agent) closeBatchWaiting(ctx context.Context) error {
	for {
		changed, ended := a.watch()
		err := a.closeBatch()
		if !errors.Is(err, spool.ErrFull) {
			return err
		}
		if ended != nil {
			return ended
		}
		// What is spooled must become durable to be sent, acknowledged and removed.
		_ = a.spool.Sync() // if it fails the spool is in RAM mode, and says so
		a.in.Unlock()
		select {
		case <-ctx.Done():
			a.in.Lock()
			return fmt.Errorf("wait for room in the spool: %w", context.Cause(ctx))
		case <-changed:
		}
		a.in.Lock()
	}
}

// closeBatch puts the batch into the spool. The caller holds a.in.
func (a *Agent) closeBatch() error {
	b := &a.batch
	if len(b.rows) == 0 {
		return nil
	}
	// Without a number: the spool gives it when the batch is sent.
	msg := device.Batch{BaseMS: b.rows[0].TimeMS, Rows: b.rows}
	frame, err := wire.AppendData(b.frame[:0], wire.CBOR, b.schema.index, &msg, wire.ClockFlag(b.clock))
	if err == nil && b.clock == device.ClockNone && !b.first.IsZero() {
		frame = appendMark(frame, a.opts.Clock.mark(b.first))
	}
	if err != nil {
		// measure accepts only what can be sent, so this is a fault of the program. The loss is reported like any other.
		a.log.Error("a batch could not be encoded and is lost", "rows", len(b.rows), "err", err)
		err = a.spool.AppendGap(device.Gap{Count: uint64(b.readings), FromMS: b.from, ToMS: b.to, Cause: device.CauseOther})
	} else {
		b.frame = frame
		err = a.spool.Append(spool.Entry{Count: uint32(b.readings), FromMS: b.from, ToMS: b.to, Body: frame})
	}
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	b.reset()
	return nil
}

// closeOld closes batches that have waited long enough, until ctx ends.
func (a *Agent) closeOld(ctx context.Context) error {
	tick := time.NewTicker(max(a.opts.MaxAge/2, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		age := max(a.opts.MaxAge, a.credit.wish())
		a.in.Lock()
		var err error
		if len(a.batch.rows) > 0 && time.Since(a.batch.since) >= age {
			err = a.closeBatch()
		}
		a.in.Unlock()
		if err != nil && !errors.Is(err, spool.ErrFull) {
			return err
		}
	}
}
