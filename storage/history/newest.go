package history

import (
	"context"
	"maps"
	"slices"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// newest returns the newest reading of each metric in the frozen parts of devices, by device and metric; of nil, in all
// parts of all devices.
func (h *heads) newest(devices []*deviceHeads) []newest {
	type snapshot struct {
		device  uint32
		batches []batch
		head    head
	}
	var parts []snapshot // the later in the log, the later in the list
	add := func(d *deviceHeads, p *part) {
		if p == nil {
			return
		}
		for _, head := range p.heads {
			if head != nil {
				parts = append(parts, snapshot{d.num, p.batches, *head})
			}
		}
	}
	h.mu.Lock()
	if devices == nil {
		for _, d := range h.devices {
			add(d, d.frozen)
			add(d, d.active)
		}
	}
	for _, d := range devices {
		add(d, d.frozen)
	}
	h.mu.Unlock()
	best := make(newestSet)
	for i := range parts {
		p := &parts[i]
		p.head.newest(p.batches, func(n newest, order uint32) {
			n.device = p.device
			best.add(n, place{flush: uint64(n.pos), order: order})
		})
	}
	return best.sorted()
}

// newestSet finds the newest reading of each metric.
type newestSet map[newestKey]newestAt

type newestKey struct{ device, metric uint32 }

type newestAt struct {
	newest
	at place
}

// add adds a reading. at decides between two readings of one time.
func (s newestSet) add(n newest, at place) {
	key := newestKey{n.device, n.Metric}
	have, ok := s[key]
	if !ok || have.TimeMS < n.TimeMS || have.TimeMS == n.TimeMS && have.at.compare(at) <= 0 {
		s[key] = newestAt{n, at}
	}
}

func (s newestSet) sorted() []newest {
	list := make([]newest, 0, len(s))
	for n := range maps.Values(s) {
		list = append(list, n.newest)
	}
	slices.SortFunc(list, func(a, b newest) int { return compareNewest(&a, &b) })
	return list
}

// newest calls yield with the newest reading of each metric, and its order.
func (h *head) newest(batches []batch, yield func(n newest, order uint32)) {
	for i, metric := range h.metrics {
		col, best := h.column(i), -1
		for row := len(h.times) - 1; row >= 0 && (best < 0 || h.unsorted); row-- {
			if (best < 0 || h.times[row] > h.times[best]) && col.value(row).Type != device.Absent {
				best = row
			}
		}
		if best < 0 {
			continue
		}
		b := &batches[batchOf(batches, h.order[best], 0)]
		t := h.times[best]
		n := newest{Point: Point{TimeMS: t, OriginalMS: t, Value: col.value(best), Metric: metric}, arrivalMS: b.arrivalMS, pos: b.pos}
		if h.quality != nil {
			n.Quality = h.quality[best]
		}
		if h.original != nil && h.original[best] != t {
			n.OriginalMS, n.Replaced = h.original[best], true
		}
		yield(n, h.order[best])
	}
}

// rebuildSlices is how many slices are searched for newest readings whose record is damaged.
const rebuildSlices = 31

// findLatest looks for the newest readings of devices in the chunks of the last slices. It takes arrival and position of
// a reading from its chunk, since rows do not keep them. What is damaged is passed over.
func (s *Store) findLatest(ctx context.Context, want func(device uint32) bool) ([]newest, error) {
	all, err := s.chunks.Slices(ctx)
	if err != nil && !damage(err) {
		return nil, err
	}
	all = all[max(0, len(all)-rebuildSlices):]
	best := make(newestSet)
	for _, slice := range all {
		list, err := s.index.list(ctx, slice)
		if err != nil {
			return nil, err
		}
		for _, f := range list.flushes {
			if f.flush > s.heads.lastFlush() {
				continue
			}
			d, err := s.index.directory(ctx, slice, f)
			if err != nil {
				return nil, err
			}
			if err := s.findIn(ctx, slice, f.flush, d, want, best); err != nil {
				return nil, err
			}
		}
	}
	return best.sorted(), nil
}

// findIn adds the readings that one flush wrote to a slice.
func (s *Store) findIn(ctx context.Context, slice storage.Slice, flush uint64, d *directory, want func(uint32) bool, best newestSet) error {
	w := &walk{store: s, slice: slice}
	for seq, e := range d.entries {
		if !want(e.device) {
			continue
		}
		c, err := w.chunk(ctx, &ref{entry: e, flush: flush})
		var rows *chunk.Rows
		if err == nil {
			rows, err = s.dec.Rows(c, nil)
		}
		if damage(err) {
			continue
		}
		if err != nil {
			return err
		}
		addNewest(best, c, rows, place{flush: flush, seq: seq})
	}
	return nil
}

func addNewest(best newestSet, c *chunk.Chunk, rows *chunk.Rows, at place) {
	for i := range rows.Columns {
		col := &rows.Columns[i]
		for row := len(rows.Times) - 1; row >= 0; row-- {
			v := col.Value(row)
			if v.Type == device.Absent {
				continue
			}
			t := rows.Times[row]
			n := newest{
				Point:  Point{TimeMS: t, OriginalMS: t, Value: v, Metric: col.Metric},
				device: c.Device, arrivalMS: c.LastArrivalMS, pos: c.Last,
			}
			if rows.Quality != nil {
				n.Quality = rows.Quality[row]
			}
			if rows.Original != nil && rows.Original[row] != t {
				n.OriginalMS, n.Replaced = rows.Original[row], true
			}
			if at.row = row; rows.Order != nil {
				at.order = rows.Order[row]
			}
			best.add(n, at)
			break
		}
	}
}

func (h *heads) lastFlush() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.saved.flush
}

func (h *heads) isDropped(num uint32) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dropped[num]
}
