package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// writer turns frozen heads into blocks.
type writer struct {
	enc *chunk.Encoder
	// revision is that of the checkpoint in the catalog.
	revision storage.Revision
	// stale are the slices that an interrupted flush may have left blocks in. They must be removed before the next one.
	stale intent

	buf []byte
}

// segment is the rows of one head in one slice.
type segment struct {
	slice    storage.Slice
	part     *part
	device   uint32
	head     *head
	index    []int32 // of the head's rows by time; nil if they stand so
	from, to int     // in index, or in the head
	ordered  bool    // rows of another head may compete with these
}

// segments returns the segments of frozen parts by slice, device and series.
func segments(devices []*deviceHeads) []segment {
	var list []segment
	for _, d := range devices {
		if d.frozen == nil {
			continue
		}
		first := len(list)
		rivals := d.frozen.rivals()
		for i, h := range d.frozen.heads {
			if h == nil {
				continue
			}
			index := h.sorted()
			at := func(i int) int64 {
				if index != nil {
					return h.times[index[i]]
				}
				return h.times[i]
			}
			for from := 0; from < len(h.times); {
				slice, _ := chunk.SliceOf(at(from))
				end := chunk.StartMS(slice) + chunk.SliceMS
				n := sort.Search(len(h.times)-from, func(i int) bool { return at(from+i) >= end })
				list = append(list, segment{
					slice: slice, part: d.frozen, device: d.num, head: h, index: index, from: from, to: from + n, ordered: rivals[i],
				})
				from += n
			}
		}
		slices.SortStableFunc(list[first:], func(a, b segment) int { return cmp.Compare(a.head.series, b.head.series) })
	}
	slices.SortStableFunc(list, func(a, b segment) int { return cmp.Compare(a.slice, b.slice) })
	return list
}

// rivals reports for each head whether another one has a metric of it, so that readings of one time may be in both.
func (p *part) rivals() []bool {
	rivals := make([]bool, len(p.heads))
	owner := make(map[uint32]int)
	for i, h := range p.heads {
		if h == nil {
			continue
		}
		for _, m := range h.metrics {
			if other, ok := owner[m]; ok {
				rivals[i], rivals[other] = true, true
			}
			owner[m] = i
		}
	}
	return rivals
}

// slicesOf returns the slices of segments that are sorted by slice.
func slicesOf(list []segment) []storage.Slice {
	var out []storage.Slice
	for i := range list {
		if n := len(out); n == 0 || out[n-1] != list[i].slice {
			out = append(out, list[i].slice)
		}
	}
	return out
}

// blocks returns the blocks of segments of one slice.
func (w *writer) blocks(ctx context.Context, list []segment, before checkpoint) ([][]byte, error) {
	var b blockWriter
	for i := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s := &list[i]
		for from := s.from; from < s.to; {
			to := min(from+chunk.MaxRows, s.to)
			if err := w.chunk(&b, s, from, to, 0, len(s.head.metrics)); err != nil {
				return nil, fmt.Errorf("device %d, %s: %w", s.device, s.head.series, err)
			}
			from = to
		}
	}
	return b.finish(list[0].slice, before), nil
}

// chunk adds a chunk of some rows and columns of a segment, or several if one would be too large.
func (w *writer) chunk(b *blockWriter, s *segment, from, to, first, last int) error {
	rows, origin := w.rows(s, from, to, first, last)
	key := chunk.Key{Slice: s.slice, Device: s.device, Series: s.head.series}
	p, err := w.enc.Append(w.buf[:0], key, rows, origin)
	w.buf = p[:0]
	if err == nil && len(p) > maxChunk {
		err = storage.ErrTooLarge
	}
	switch {
	case err == nil:
		n := len(rows.Times)
		b.add(&chunk.Header{Key: key, FirstMS: rows.Times[0], LastMS: rows.Times[n-1]}, p)
		return nil
	case !errors.Is(err, storage.ErrTooLarge):
		return err
	case to-from > 1:
		mid := from + (to-from)/2
		if err := w.chunk(b, s, from, mid, first, last); err != nil {
			return err
		}
		return w.chunk(b, s, mid, to, first, last)
	case last-first > 1:
		mid := first + (last-first)/2
		if err := w.chunk(b, s, from, to, first, mid); err != nil {
			return err
		}
		return w.chunk(b, s, from, to, mid, last)
	default:
		return err // one value is always small enough
	}
}

// rows turns rows of a head into columns. They are valid until the next call.
func (w *writer) rows(s *segment, from, to, first, last int) (*chunk.Rows, chunk.Origin) {
	h, n, width := s.head, to-from, len(s.head.metrics)
	row := func(i int) int {
		if s.index != nil {
			return int(s.index[from+i])
		}
		return from + i
	}
	r := &chunk.Rows{Times: make([]int64, n), Columns: make([]chunk.Column, last-first)}
	bits := make([]uint64, n*(last-first))
	for c := range r.Columns {
		r.Columns[c] = chunk.Column{Metric: h.metrics[first+c], Texts: h.texts, Bits: bits[c*n : (c+1)*n]}
		if h.types != nil {
			r.Columns[c].Types = make([]device.Type, n)
		}
	}
	if s.ordered {
		r.Order = make([]uint32, n)
	}
	origin := chunk.Origin{TimeQuality: device.ClockNTP}
	for i, at := 0, 0; i < n; i++ {
		k := row(i)
		r.Times[i] = h.times[k]
		if s.ordered {
			r.Order[i] = h.order[k]
		}
		for c := range r.Columns {
			r.Columns[c].Bits[i] = h.bits[k*width+first+c]
			if h.types != nil {
				r.Columns[c].Types[i] = h.types[k*width+first+c]
			}
		}
		at = batchOf(s.part.batches, h.order[k], at)
		origin = include(origin, &s.part.batches[at], i == 0)
	}
	r.Quality = pick(h.quality, n, row)
	if !slices.ContainsFunc(r.Quality, func(q device.Quality) bool { return q != 0 }) {
		r.Quality = nil
	}
	if r.Original = pick(h.original, n, row); slices.Equal(r.Original, r.Times) {
		r.Original = nil
	}
	return r, origin
}

// pick returns what n rows have, or nil if no row has anything.
func pick[T device.Quality | int64](from []T, n int, row func(int) int) []T {
	if from == nil {
		return nil
	}
	out := make([]T, n)
	for i := range out {
		out[i] = from[row(i)]
	}
	return out
}

func include(o chunk.Origin, b *batch, first bool) chunk.Origin {
	if first {
		return chunk.Origin{First: b.pos, Last: b.pos, FirstArrivalMS: b.arrivalMS, LastArrivalMS: b.arrivalMS, TimeQuality: b.quality}
	}
	return chunk.Origin{
		First: min(o.First, b.pos), Last: max(o.Last, b.pos), TimeQuality: min(o.TimeQuality, b.quality),
		FirstArrivalMS: min(o.FirstArrivalMS, b.arrivalMS), LastArrivalMS: max(o.LastArrivalMS, b.arrivalMS),
	}
}
