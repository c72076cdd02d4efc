package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/storage"
	"telemetryhub/storage/record"
)

// IngestResult says what became of readings that came without a socket.
type IngestResult struct {
	Stored int        // readings on disk
	Bad    []wire.Bad // what was refused, recorded as a gap
}

// Ingest stores readings that came without a socket: the forms by hand and SenML packs. It returns when they are on disk.
// There is no number, so a repetition is stored again, as a reading of the same time: the later one wins.
//
// Errors: ErrUnknownDevice, *BadInput, ErrBusy, ErrDraining, storage.ErrFull, storage.ErrReadOnly and storage.ErrUnknown.
// With ErrBusy the readings may still be stored.
func (h *Hub) Ingest(ctx context.Context, id device.ID, f wire.Format, body []byte) (IngestResult, error) {
	e := h.registry.lookup(id)
	switch {
	case e == nil:
		return IngestResult{}, ErrUnknownDevice
	case h.draining.Load():
		return IngestResult{}, ErrDraining
	case h.readOnly.Load():
		return IngestResult{}, fmt.Errorf("the hub takes no readings: %w", storage.ErrReadOnly)
	case h.full():
		return IngestResult{}, fmt.Errorf("the hub takes no readings now: %w", storage.ErrFull)
	}
	t, err := wire.Peek(f, body)
	if err != nil {
		return IngestResult{}, &BadInput{Text: err.Error()}
	}
	if !t.Loose() {
		return IngestResult{}, &BadInput{Text: fmt.Sprintf(`a %s message needs a WebSocket; here send {"temperature":21.4}, {"t":1766000000123,"v":{"temperature":21.4}} or a SenML pack`, t)}
	}
	b := benches.Get().(*workbench)
	defer benches.Put(b)
	item, bad, err := h.looseEntry(ctx, e, f, body, b)
	if err != nil {
		return IngestResult{}, err
	}
	if len(b.rows) == 0 && len(bad) == 0 {
		return IngestResult{}, nil
	}
	done := make(chan error, 1)
	item.done = done
	if err := h.queue.put(ctx, item, b.body, b.refused); err != nil {
		return IngestResult{}, busy(ctx, err)
	}
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ErrBusy
	}
	if err != nil {
		return IngestResult{}, err
	}
	return IngestResult{Stored: item.readings, Bad: slices.Clone(bad)}, nil
}

func busy(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ErrBusy
	}
	return err
}

// receiveLoose takes what a person typed: it is stamped on arrival, stored at most once and not acknowledged.
func (s *Session) receiveLoose(ctx context.Context, f wire.Format, frame []byte) error {
	if err := s.admit(ctx, 0, len(frame)); err != nil {
		return err
	}
	b := benches.Get().(*workbench)
	defer benches.Put(b)
	item, bad, err := s.hub.looseEntry(ctx, s.entity, f, frame, b)
	if err != nil {
		s.decided(len(frame))
		return s.answerLoose(err)
	}
	if len(bad) > 0 {
		if err := s.sendErr("bad", fmt.Sprintf("reading %d was refused: %s (%d refused in all)", bad[0].Row+1, bad[0].Code, len(bad))); err != nil {
			return err
		}
	}
	if len(b.rows) == 0 && len(bad) == 0 {
		s.decided(len(frame))
		return nil
	}
	item.session, item.frame = s, len(frame)
	return s.hub.queue.put(ctx, item, b.body, b.refused)
}

// answerLoose tells a person what was wrong instead of closing the connection.
func (s *Session) answerLoose(err error) error {
	var bad *BadInput
	if !errors.As(err, &bad) {
		return err
	}
	code := bad.Code
	if code == "" {
		code = "bad"
	}
	return s.sendErr(code, bad.Text)
}

// looseEntry decodes readings with names into b, registers what is new, and prepares the entry for the queue. If
// nothing of it stands, b.rows is empty and the entry is the gap that it leaves.
func (h *Hub) looseEntry(ctx context.Context, e *entity, f wire.Format, frame []byte, b *workbench) (entry, []wire.Bad, error) {
	now := time.Now().UnixMilli()
	readings, err := b.Loose(f, frame, now)
	if err != nil {
		return entry{}, nil, &BadInput{Text: err.Error()}
	}
	schema, bad, err := h.looseRows(ctx, e, readings, now, b)
	if err != nil {
		return entry{}, nil, err
	}
	item := entry{head: record.Header{Kind: record.Data, Device: e.num, ArrivalMS: now}}
	item.readings, item.firstMS, item.lastMS, item.head.TimeReplaced = survey(b.rows, now)
	if len(b.rows) > 0 {
		b.body = record.AppendRows(b.body[:0], schema, now, now, b.rows)
	}
	b.refused = b.refused[:0]
	if lost := refusedGap(bad, &device.Batch{BaseMS: now, Rows: b.rows}, now); lost.Count > 0 {
		if b.refused = record.AppendGap(b.refused, &lost); len(b.rows) == 0 {
			item.head.Kind = record.Gap
			b.body, b.refused = append(b.body[:0], b.refused...), b.refused[:0]
		}
		h.stats.refused.Add(lost.Count)
	}
	return item, bad, nil
}

// looseRows turns readings into rows of the device's schema for names, which grows as needed.
func (h *Hub) looseRows(ctx context.Context, e *entity, readings []wire.Reading, now int64, b *workbench) (*device.Schema, []wire.Bad, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	book, err := e.bookLocked(ctx, h.registry)
	if err != nil {
		return nil, nil, err
	}
	g := growing{book: book}
	loose := book.loose()
	if loose != nil {
		g.schema = *loose
	}
	b.rows = b.rows[:0]
	var bad []wire.Bad
	for i := 0; i < len(readings); {
		n := i + 1
		for n < len(readings) && readings[n].TimeMS == readings[i].TimeMS {
			n++
		}
		bad = g.instant(readings[i:n], i, bad, now, b)
		i = n
	}
	if !g.grown {
		return loose, bad, nil
	}
	s, err := e.registerLocked(ctx, h.registry, &g.schema)
	return s, bad, err
}

// growing is the schema for names of one device while it takes up new ones.
type growing struct {
	book   *schemaBook
	schema device.Schema
	grown  bool
	places []int
}

// grow makes the schema's slices our own before the first change.
func (g *growing) grow() {
	if !g.grown {
		g.grown = true
		g.schema.ID, g.schema.Num = "", 0
		g.schema.Metrics = slices.Clone(g.schema.Metrics)
		g.schema.Sets = slices.Clone(g.schema.Sets)
	}
}

// instant adds the rows of readings of one time: one row of a set if they are several, else single ones.
func (g *growing) instant(readings []wire.Reading, first int, bad []wire.Bad, now int64, b *workbench) []wire.Bad {
	g.places = g.places[:0]
	start := len(b.rows)
	for i := range readings {
		r := &readings[i]
		place, code := -1, r.Bad
		if code == 0 {
			if place = g.metric(r); place < 0 {
				code = wire.BadLimit
			}
		}
		if code != 0 {
			bad = append(bad, wire.Bad{Row: first + i, Count: 1, Code: code})
			continue
		}
		g.places = append(g.places, place)
		at := r.TimeMS
		if at == 0 {
			at = now
		}
		row := device.Row{Ref: device.SingleRef(place), TimeMS: at, Values: []device.Value{r.Value}}
		if m := &g.schema.Metrics[place]; r.Value.Type == device.Number && !m.Plausible(r.Value.Float()) {
			row.Quality = device.OutOfRange
		}
		b.rows = append(b.rows, row)
	}
	if set := g.set(); set >= 0 {
		g.join(b, start, set)
	}
	return bad
}

// metric returns the place of the metric that a reading belongs to, making it if need be; -1 if there are too many.
func (g *growing) metric(r *wire.Reading) int {
	fits := func(m *device.Metric) bool {
		return m.Name == r.Name && (r.Unit == "" || r.Unit == m.Unit) && kindTakes(m.Kind, r.Value.Type)
	}
	if i := slices.IndexFunc(g.schema.Metrics, func(m device.Metric) bool { return fits(&m) }); i >= 0 {
		return i
	}
	if len(g.schema.Metrics) >= device.MaxMetrics {
		return -1
	}
	m := device.NewMetric(r.Name)
	m.Unit = r.Unit
	switch r.Value.Type {
	case device.Bool:
		m.Kind = device.State
	case device.String:
		m.Kind = device.Text
	}
	if d := g.book.declared(); d != nil {
		if i := slices.IndexFunc(d.Metrics, func(m device.Metric) bool { return fits(&m) }); i >= 0 {
			m = d.Metrics[i]
		}
	}
	m.Alias, m.Num = 0, 0
	g.grow()
	g.schema.Metrics = append(g.schema.Metrics, m)
	return len(g.schema.Metrics) - 1
}

func kindTakes(k device.Kind, t device.Type) bool {
	switch t {
	case device.Bool:
		return k == device.State
	case device.String:
		return k == device.State || k == device.Text
	}
	return k != device.Text
}

// set returns the set of exactly the metrics in g.places, making it if there are few yet; -1 if there is none or they
// are not two or more different ones.
func (g *growing) set() int {
	sorted := slices.Clone(g.places)
	slices.Sort(sorted)
	if len(sorted) < 2 || len(slices.Compact(slices.Clone(sorted))) != len(sorted) {
		return -1
	}
	if i := slices.IndexFunc(g.schema.Sets, func(s device.Set) bool { return slices.Equal(s.Metrics, sorted) }); i >= 0 {
		return i
	}
	if len(g.schema.Sets) >= maxLooseSets {
		return -1
	}
	g.grow()
	g.schema.Sets = append(g.schema.Sets, device.Set{Metrics: sorted})
	return len(g.schema.Sets) - 1
}

// join replaces the single rows from start on by one row of the set.
func (g *growing) join(b *workbench, start, set int) {
	rows := b.rows[start:]
	values := make([]device.Value, len(rows))
	row := device.Row{Ref: device.SetRef(set), TimeMS: rows[0].TimeMS, Values: values}
	for i := range rows {
		place, _ := rows[i].Ref.Single()
		values[slices.Index(g.schema.Sets[set].Metrics, place)] = rows[i].Values[0]
		row.Quality |= rows[i].Quality
	}
	b.rows = append(b.rows[:start], row)
}
