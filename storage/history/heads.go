package history

import (
	"slices"
	"sync"
	"time"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// deviceHeads is one device in memory. Its plans and series are used by Apply alone.
type deviceHeads struct {
	num    uint32
	plans  []plan
	series []seriesHead

	active, frozen *part // nil where there is nothing
}

// seriesHead is a series that the device has had rows of lately.
type seriesHead struct {
	key     chunk.Series
	metrics []uint32
	rows    int // in the last part that was frozen
}

// plan remembers where the rows of a schema go.
type plan struct {
	schema *device.Schema
	sets   []int32 // by position in Schema.Sets: one more than the index in series, zero if not yet known
	single []int32 // likewise by position in Schema.Metrics
}

// maxPlans is how many schemas of one device are remembered at a time. A device changes its schema when its firmware
// changes; during a rollback two are in use.
const maxPlans = 4

// frozen is what a flush writes.
type frozen struct {
	before, after checkpoint
	devices       []*deviceHeads // those that had a frozen part when it began
	bytes         int64
	logBytes      int64
}

// heads is all that is in memory and not in chunks.
type heads struct {
	// turn is held by Apply for a whole group and by freeze, so that a freeze never divides a group. It is taken before
	// mu. It guards the fields of deviceHeads that belong to Apply.
	turn sync.Mutex

	mu        sync.Mutex // guards the fields below and all parts; never held during I/O or a callback
	devices   map[uint32]*deviceHeads
	dropped   map[uint32]bool
	frozen    *frozen    // nil if there is none
	saved     checkpoint // of the last complete flush: what has a greater number must not be read from chunks
	applied   storage.Position
	arrivalMS int64     // of the last record in applied
	bytes     int64     // of active parts
	logBytes  int64     // since the last freeze
	since     time.Time // when the first group after the last freeze was applied
	lost      uint64    // records and groups that could not be applied, or not wholly
}

// deviceLocked returns the heads of a device, made if needed, and nil for a device that was dropped.
func (h *heads) deviceLocked(num uint32) *deviceHeads {
	if len(h.dropped) > 0 && h.dropped[num] {
		return nil
	}
	d := h.devices[num]
	if d == nil {
		d = &deviceHeads{num: num}
		h.devices[num] = d
	}
	if d.active == nil {
		d.active = &part{bytes: deviceBytes}
		h.bytes += deviceBytes
	}
	return d
}

// growLocked counts memory that the active part of d takes up more than before.
func (h *heads) growLocked(d *deviceHeads, bytes int64) {
	d.active.bytes += bytes
	h.bytes += bytes
}

// deviceBytes is about what a device takes up besides its rows.
const deviceBytes = 512

// headBytes is about what a head takes up besides its rows, and firstRows is how many rows it makes room for when it begins.
const (
	headBytes = 320
	firstRows = 8
)

// headLocked returns the head of the series with the given index, made if needed, and the bytes that making it took.
func (d *deviceHeads) headLocked(i int) (h *head, grown int64) {
	p := d.active
	if i >= len(p.heads) {
		p.heads = append(p.heads, make([]*head, len(d.series)-len(p.heads))...)
	}
	if h = p.heads[i]; h == nil {
		h = &head{series: d.series[i].key, metrics: d.series[i].metrics}
		p.heads[i], grown = h, headBytes+firstRows*int64(rowBytes+8*len(h.metrics))
	}
	return h, grown
}

// index returns the index of a series with these metrics, and false if the series is known with other metrics.
func (d *deviceHeads) index(key chunk.Series, metrics []uint32) (int, bool) {
	for i := range d.series {
		if d.series[i].key == key {
			return i, slices.Equal(d.series[i].metrics, metrics)
		}
	}
	d.series = append(d.series, seriesHead{key: key, metrics: metrics})
	return len(d.series) - 1, true
}

// place returns the index of the series that a row belongs to, and false if the schema and the rows before contradict
// each other.
func (d *deviceHeads) place(p *plan, ref device.Ref) (int, bool) {
	list, at := p.sets, ref.Set()
	if m, ok := ref.Single(); ok {
		list, at = p.single, m
	}
	if i := list[at]; i > 0 {
		return int(i - 1), true
	}
	metrics := make([]uint32, p.schema.Width(ref))
	for i := range metrics {
		metrics[i] = p.schema.Column(ref, i).Num
	}
	key := chunk.SingleSeries(metrics[0])
	if _, ok := ref.Single(); !ok {
		key = chunk.SetSeries(p.schema.Sets[at].Num)
	}
	i, ok := d.index(key, metrics)
	if ok {
		list[at] = int32(i + 1)
	}
	return i, ok
}

// plan returns the plan for a schema number, or nil if it is not remembered.
func (d *deviceHeads) plan(schema uint32) *plan {
	for i := range d.plans {
		if d.plans[i].schema.Num == schema {
			return &d.plans[i]
		}
	}
	return nil
}

func (d *deviceHeads) remember(s *device.Schema) *plan {
	if len(d.plans) == maxPlans {
		d.plans = slices.Delete(d.plans, 0, 1)
	}
	d.plans = append(d.plans, plan{schema: s, sets: make([]int32, len(s.Sets)), single: make([]int32, len(s.Metrics))})
	return &d.plans[len(d.plans)-1]
}

// freezeLocked makes the active parts frozen and returns them. The caller holds turn. A device that has had nothing
// since the freeze before is forgotten.
func (h *heads) freezeLocked() *frozen {
	f := &frozen{
		before:   h.saved,
		after:    checkpoint{h.saved.flush + 1, h.applied, h.arrivalMS},
		bytes:    h.bytes,
		logBytes: h.logBytes,
	}
	for num, d := range h.devices {
		if d.active == nil {
			delete(h.devices, num)
			continue
		}
		for i := range d.series {
			d.series[i].rows = 0
			if i < len(d.active.heads) && d.active.heads[i] != nil {
				d.series[i].rows = len(d.active.heads[i].times)
			}
		}
		d.frozen, d.active = d.active, nil
		f.devices = append(f.devices, d)
	}
	h.frozen, h.bytes, h.logBytes, h.since = f, 0, 0, time.Time{}
	return f
}

// thaw forgets the frozen parts: they are in chunks.
func (h *heads) thaw(f *frozen) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range f.devices {
		d.frozen = nil
	}
	h.frozen, h.saved = nil, f.after
}

// drop forgets a device for ever.
func (h *heads) drop(num uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped[num] = true
	d := h.devices[num]
	if d == nil {
		return
	}
	if d.active != nil {
		h.bytes -= d.active.bytes
		d.active = nil
	}
	if d.frozen != nil {
		h.frozen.bytes -= d.frozen.bytes
		d.frozen = nil
	}
}

// usedLocked returns the memory of all heads.
func (h *heads) usedLocked() int64 {
	n := h.bytes
	if h.frozen != nil {
		n += h.frozen.bytes
	}
	return n
}
