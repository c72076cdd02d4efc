package history

import (
	"cmp"
	"math"
	"slices"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// head holds the rows of one series since the last freeze, in log order. What lies below the length of its slices
// never changes, so a copy of the struct that was made under the lock can be read without it.
type head struct {
	// What every row needs lies together, since with many devices each row finds its head out of the processor's cache.
	times    []int64 // filed
	last     int64   // of times
	unsorted bool    // times are not in order
	rare     bool    // there is quality, original or types
	order    []uint32
	bits     []uint64 // row after row, one for each metric; for a text its place in texts

	metrics  []uint32
	types    []device.Type    // like bits; nil while every value is a number
	quality  []device.Quality // by row; nil while all are good
	original []int64          // by row, the device's own time; nil while none was replaced
	texts    []string
	series   chunk.Series
}

// rowBytes is what a row takes up besides its values: time and order.
const rowBytes = 8 + 4

// batch is what the rows of one record have in common.
type batch struct {
	first     uint32 // order of its first row
	quality   device.TimeQuality
	arrivalMS int64
	pos       storage.Position
}

const batchBytes = 24

// part is what one device has collected between two freezes.
type part struct {
	heads   []*head // by index of the series; nil where there is no row
	batches []batch
	next    uint32 // order of the next row: the rows of one device between two freezes are counted
	gaps    gapList
	bytes   int64
}

// maxGuess is how many rows a head makes room for when it begins, at most.
const maxGuess = chunk.MaxRows

// grow makes room for more rows. want is a guess of how many rows there will be in all, zero if unknown.
func (h *head) grow(want int) {
	n := len(h.times)
	size := max(firstRows, n+n/2)
	if n == 0 && want > 0 {
		size = min(want+want/8+1, maxGuess)
	}
	w := len(h.metrics)
	h.times = append(make([]int64, 0, size), h.times...)
	h.order = append(make([]uint32, 0, size), h.order...)
	h.bits = append(make([]uint64, 0, size*w), h.bits...)
}

// add appends a row and returns the bytes that it takes up, and false if a value was left out because it is longer than
// any text may be.
func (h *head) add(row *device.Row, filed int64, replaced bool, order uint32, want int) (grown int64, whole bool) {
	n := len(h.times)
	if n == cap(h.times) {
		h.grow(want)
	}
	grown = int64(rowBytes + 8*len(h.metrics))
	h.unsorted = h.unsorted || n > 0 && filed < h.last
	h.last = filed
	h.times = append(h.times, filed)
	h.order = append(h.order, order)
	rare := h.rare || replaced || row.Quality != 0
	for i := 0; i < len(row.Values) && !rare; i++ {
		rare = row.Values[i].Type != device.Number
	}
	if rare {
		bytes, whole := h.addRare(row, replaced, n)
		return grown + bytes, whole
	}
	for i := range row.Values {
		h.bits = append(h.bits, math.Float64bits(row.Values[i].Float()))
	}
	return grown, true
}

// addRare appends what a row has besides time and order, once any row of the head is not just good numbers at their own
// time.
func (h *head) addRare(row *device.Row, replaced bool, n int) (grown int64, whole bool) {
	h.rare, whole = true, true
	if row.Quality != 0 || h.quality != nil {
		grown += h.addQuality(n, row.Quality)
	}
	if replaced || h.original != nil {
		grown += h.addOriginal(n, row.TimeMS)
	}
	for i := range row.Values {
		v := &row.Values[i]
		if v.Type == device.Number && h.types == nil {
			h.bits = append(h.bits, math.Float64bits(v.Float()))
			continue
		}
		bytes, ok := h.addTyped(v)
		grown += bytes
		whole = whole && ok
	}
	return grown, whole
}

func (h *head) addTyped(v *device.Value) (grown int64, ok bool) {
	typ, ok := v.Type, len(v.Text()) <= device.MaxTextLen
	if !ok {
		typ = device.Absent
	}
	if h.types == nil {
		h.types = make([]device.Type, len(h.bits), cap(h.bits))
		for i := range h.types {
			h.types[i] = device.Number
		}
		grown += int64(len(h.types))
	}
	grown++
	bits := math.Float64bits(v.Float())
	if typ == device.String {
		var more int64
		bits, more = h.text(v.Text())
		grown += more
	}
	h.types = append(h.types, typ)
	h.bits = append(h.bits, bits)
	return grown, ok
}

// text returns the place of a text. States repeat themselves, so the text of the row before is used again if it is the
// same.
func (h *head) text(s string) (uint64, int64) {
	if before := len(h.bits) - len(h.metrics); before >= 0 && h.types[before] == device.String {
		if at := h.bits[before]; h.texts[at] == s {
			return at, 0
		}
	}
	h.texts = append(h.texts, s)
	return uint64(len(h.texts) - 1), int64(len(s)) + 16
}

func (h *head) addQuality(n int, q device.Quality) int64 {
	if h.quality == nil {
		h.quality = make([]device.Quality, n, cap(h.times))
	}
	h.quality = append(h.quality, q)
	return 1
}

func (h *head) addOriginal(n int, ms int64) int64 {
	grown := int64(8)
	if h.original == nil {
		h.original = append(make([]int64, 0, cap(h.times)), h.times[:n]...)
		grown += int64(8 * n)
	}
	h.original = append(h.original, ms)
	return grown
}

// sorted returns the rows by time and then by place in the log, or nil if they stand so.
func (h *head) sorted() []int32 {
	if !h.unsorted {
		return nil
	}
	index := make([]int32, len(h.times))
	for i := range index {
		index[i] = int32(i)
	}
	slices.SortFunc(index, func(a, b int32) int { return cmp.Or(cmp.Compare(h.times[a], h.times[b]), cmp.Compare(a, b)) })
	return index
}

// column returns the values of the i-th metric.
func (h *head) column(i int) column {
	return column{bits: h.bits, types: h.types, texts: h.texts, offset: i, stride: len(h.metrics)}
}

// batchOf returns the index in batches of the batch that a row came in. guess is the index for a row nearby.
func batchOf(batches []batch, order uint32, guess int) int {
	for i := guess; i < min(guess+2, len(batches)); i++ {
		if batches[i].first <= order && (i+1 == len(batches) || order < batches[i+1].first) {
			return i
		}
	}
	i, _ := slices.BinarySearchFunc(batches, order+1, func(b batch, order uint32) int { return cmp.Compare(b.first, order) })
	return i - 1
}
