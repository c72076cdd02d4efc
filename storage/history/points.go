package history

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"telemetryhub/device"
	"telemetryhub/storage/chunk"
)

// Query asks for readings of one device.
type Query struct {
	Device uint32
	// Metrics are numbers of metrics (device.Metric.Num). Nil means all.
	Metrics []uint32
	// FromMS and ToMS bound the filed time: From is included, To is not.
	FromMS, ToMS int64
	// Limit ends the answer after so many readings. Zero means no limit. Negative is an error.
	Limit int
}

func (q *Query) check() error {
	if q.Limit < 0 {
		return fmt.Errorf("history query: the limit is negative")
	}
	return nil
}

// Point is one reading.
type Point struct {
	// TimeMS is when it was filed.
	TimeMS int64
	Value  device.Value
	// OriginalMS is the time that the device gave, if Replaced says that it was not acceptable. Otherwise it is TimeMS.
	OriginalMS int64
	Metric     uint32
	Quality    device.Quality
	Replaced   bool
}

// Points calls yield for every reading that q asks for, in order of time and then of the metric's number, until yield
// returns false. Of two readings of one metric with one time only the later one in the log is there.
//
// It sees everything that was applied before the call, and nothing twice. It holds no lock while yield runs and needs
// memory for the chunks that overlap at one time, not for the answer.
//
// If something is damaged the rest is yielded, then Points returns a [DamageError].
func (s *Store) Points(ctx context.Context, q Query, yield func(Point) bool) error {
	if err := q.check(); err != nil {
		return err
	}
	m := merge{from: q.FromMS, to: q.ToMS, wanted: q.Metrics, all: q.Metrics == nil}
	left := q.Limit
	err := s.walk(ctx, q.Device, &m, func() bool {
		for _, slot := range m.touched {
			if !yield(m.points[slot]) {
				return false
			}
			if left--; left == 0 {
				return false
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("history of device %d: %w", q.Device, err)
	}
	return nil
}

// merge puts the rows of many heads and chunks into one order and decides between readings of one time.
type merge struct {
	from, to int64
	wanted   []uint32
	all      bool

	metrics []uint32 // by slot
	points  []Point  // by slot: the newest reading of the time at hand
	filled  []uint64 // by slot: the turn in which it was filled
	turn    uint64   // counts the times
	touched []int    // slots that have a reading, by number of the metric
	open    cursorHeap
	rows    []rowAt // scratch
}

type rowAt struct {
	place
	c *cursor
}

// slot returns the slot of a metric, and false if nobody asked for it.
func (m *merge) slot(metric uint32) (int, bool) {
	if i := slices.Index(m.metrics, metric); i >= 0 {
		return i, true
	}
	if !m.wantsOne(metric) {
		return 0, false
	}
	m.metrics = append(m.metrics, metric)
	m.points = append(m.points, Point{Metric: metric})
	m.filled = append(m.filled, 0)
	return len(m.metrics) - 1, true
}

// wants reports whether any of the metrics was asked for.
func (m *merge) wants(metrics []uint32) bool { return slices.ContainsFunc(metrics, m.wantsOne) }

func (m *merge) wantsOne(metric uint32) bool { return m.all || slices.Contains(m.wanted, metric) }

// addHead adds the rows of a head.
func (m *merge) addHead(h *head, flush uint64) {
	c := &cursor{flush: flush, times: h.times, order: h.order, quality: h.quality, original: h.original}
	for i, metric := range h.metrics {
		if slot, ok := m.slot(metric); ok {
			col := h.column(i)
			col.slot = slot
			c.columns = append(c.columns, col)
		}
	}
	if c.bound(m.from, m.to, h.unsorted); c.more() {
		m.open.push(c)
	}
}

// addRows adds the rows of a chunk.
func (m *merge) addRows(rows *chunk.Rows, r *ref) {
	c := &cursor{
		flush: r.flush, seq: r.seq, times: rows.Times, order: rows.Order, quality: rows.Quality, original: rows.Original,
	}
	for i := range rows.Columns {
		col := &rows.Columns[i]
		if slot, ok := m.slot(col.Metric); ok {
			c.columns = append(c.columns, column{slot: slot, bits: col.Bits, types: col.Types, texts: col.Texts, stride: 1})
		}
	}
	if c.bound(m.from, m.to, false); c.more() {
		m.open.push(c)
	}
}

// take fills the slots with the readings of one time.
func (m *merge) take(t int64) {
	m.turn++
	m.touched = m.touched[:0]
	m.rows = m.rows[:0]
	for len(m.open) > 0 && m.open[0].time() == t {
		c := m.open[0]
		m.rows = append(m.rows, rowAt{c.place(), c})
		m.open.advance()
	}
	if len(m.rows) > 1 {
		slices.SortFunc(m.rows, func(a, b rowAt) int { return a.compare(b.place) })
	}
	for i := range m.rows {
		m.put(t, m.rows[i].c, m.rows[i].row)
	}
	slices.SortFunc(m.touched, func(a, b int) int { return cmp.Compare(m.metrics[a], m.metrics[b]) })
}

// put lets the present values of a row replace those in their slots.
func (m *merge) put(t int64, c *cursor, row int) {
	p := Point{TimeMS: t, OriginalMS: t}
	if c.quality != nil {
		p.Quality = c.quality[row]
	}
	if c.original != nil && c.original[row] != t {
		p.OriginalMS, p.Replaced = c.original[row], true
	}
	for i := range c.columns {
		col := &c.columns[i]
		p.Value = col.value(row)
		if p.Value.Type == device.Absent {
			continue
		}
		p.Metric = m.metrics[col.slot]
		if m.filled[col.slot] != m.turn {
			m.filled[col.slot] = m.turn
			m.touched = append(m.touched, col.slot)
		}
		m.points[col.slot] = p
	}
}

// view adds the heads of a device to m. It returns the number of the flush up to which chunks hold the rest, and false
// if the device was dropped.
func (h *heads) view(num uint32, m *merge) (uint64, bool) {
	var copies []head
	var flushes []uint64
	h.mu.Lock()
	saved, dropped := h.saved.flush, h.dropped[num]
	if d := h.devices[num]; d != nil && !dropped {
		for _, p := range []*part{d.frozen, d.active} {
			if p == nil {
				continue
			}
			flush := uint64(active)
			if p == d.frozen {
				flush = h.frozen.after.flush
			}
			for _, head := range p.heads {
				if head != nil && m.wants(head.metrics) {
					copies, flushes = append(copies, *head), append(flushes, flush)
				}
			}
		}
	}
	h.mu.Unlock()
	for i := range copies {
		m.addHead(&copies[i], flushes[i])
	}
	return saved, !dropped
}
