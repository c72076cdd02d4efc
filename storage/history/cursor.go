package history

import (
	"cmp"
	"math"
	"slices"

	"telemetryhub/device"
)

// active is the flush number of rows that no flush has frozen yet: they are later than all others.
const active = math.MaxUint64

// place orders rows of one device with the same time: the greater one is later in the log.
type place struct {
	flush uint64
	order uint32 // comparable within a flush only
	seq   int    // of the chunk within the flush
	row   int
}

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.flush, o.flush), cmp.Compare(p.order, o.order), cmp.Compare(p.seq, o.seq), cmp.Compare(p.row, o.row))
}

// column is the values of one metric in a head or a chunk.
type column struct {
	slot           int
	bits           []uint64
	types          []device.Type // nil if all are numbers
	texts          []string
	offset, stride int
}

// value returns the value of a row.
func (c *column) value(row int) device.Value {
	i := row*c.stride + c.offset
	typ := device.Number
	if c.types != nil {
		typ = c.types[i]
	}
	switch typ {
	case device.Number:
		return device.NumberValue(math.Float64frombits(c.bits[i]))
	case device.Bool:
		return device.BoolValue(c.bits[i] != 0)
	case device.String:
		return device.TextValue(c.texts[c.bits[i]])
	default:
		return device.Value{}
	}
}

// cursor walks over rows in order of time, then of the log.
type cursor struct {
	flush    uint64
	seq      int
	times    []int64
	order    []uint32         // nil: the rows stand in the order of the log
	quality  []device.Quality // nil: all are good
	original []int64          // nil: no time was replaced
	columns  []column

	index   []int32 // the rows in order of time; nil if they stand in it
	at, end int     // in index, or in times
}

// bound goes to the first row that is not before from and sets the end before the first one that is not before to.
func (c *cursor) bound(from, to int64, unsorted bool) {
	if !unsorted {
		c.at, _ = slices.BinarySearch(c.times, from)
		c.end, _ = slices.BinarySearch(c.times, to)
		return
	}
	for i, t := range c.times {
		if from <= t && t < to {
			c.index = append(c.index, int32(i))
		}
	}
	slices.SortFunc(c.index, func(a, b int32) int {
		return cmp.Or(cmp.Compare(c.times[a], c.times[b]), cmp.Compare(a, b))
	})
	c.at, c.end = 0, len(c.index)
}

func (c *cursor) more() bool { return c.at < c.end }

// row returns the row that the cursor stands on.
func (c *cursor) row() int {
	if c.index != nil {
		return int(c.index[c.at])
	}
	return c.at
}

func (c *cursor) time() int64 { return c.times[c.row()] }

func (c *cursor) place() place {
	row := c.row()
	p := place{flush: c.flush, seq: c.seq, row: row}
	if c.order != nil {
		p.order = c.order[row]
	}
	return p
}

// cursorHeap is a heap of cursors that have more, the one with the earliest time first.
type cursorHeap []*cursor

func (h *cursorHeap) push(c *cursor) {
	*h = append(*h, c)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if s[up].time() <= s[i].time() {
			return
		}
		s[up], s[i] = s[i], s[up]
		i = up
	}
}

// advance moves the first cursor by one row and restores the heap.
func (h *cursorHeap) advance() {
	s := *h
	s[0].at++
	if !s[0].more() {
		n := len(s) - 1
		s[0], s[n] = s[n], nil
		s = s[:n]
		*h = s
	}
	for i := 0; ; {
		least := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < len(s) && s[c].time() < s[least].time() {
				least = c
			}
		}
		if least == i {
			return
		}
		s[i], s[least] = s[least], s[i]
		i = least
	}
}
