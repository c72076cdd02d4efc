// Package chunk is the column codec of the history: a [Rows] is up to [MaxRows] instants of one [Series], a chunk is the
// same as bytes. FORMAT.md has every byte.
//
// All metrics of a series share one column of times. Values come back as exactly the float64, bit by bit, the text or
// the truth value that went in. Columns that are rarely needed (quality, replaced times, order) take no room where they
// are not. The checksum of a chunk covers its [Key], so that a chunk that lies in a wrong place is found out.
package chunk

import (
	"fmt"

	"telemetryhub/storage"
)

// Version is the format version of a chunk.
const Version = 1

// Limits of one chunk. A decoder refuses more, so that no chunk can make it use more than about 40 MiB.
const (
	MaxRows    = 4096
	MaxColumns = 256
)

// SliceMS is the length of a slice: one UTC day in milliseconds.
const SliceMS = 24 * 3600 * 1000

// SliceOf returns the slice that a filed time falls into, and false for a time so far off that no slice has it.
func SliceOf(ms int64) (storage.Slice, bool) {
	day := ms / SliceMS
	if ms%SliceMS < 0 {
		day--
	}
	return storage.Slice(day), day == int64(storage.Slice(day))
}

// StartMS returns the first millisecond of a slice.
func StartMS(s storage.Slice) int64 { return int64(s) * SliceMS }

// Series says which rows belong together: those of one set, or those of one metric that came alone. Sets and metrics are
// counted apart, so both numbers may occur as either.
type Series uint64

// SetSeries is the series of a set (device.Set.Num).
func SetSeries(num uint32) Series { return Series(num) << 1 }

// SingleSeries is the series of the rows that hold only the metric (device.Metric.Num).
func SingleSeries(num uint32) Series { return Series(num)<<1 | 1 }

// Single returns the number of the metric and true if the series is of one metric alone.
func (s Series) Single() (uint32, bool) { return uint32(s >> 1), s&1 == 1 }

// Set returns the number of the set. It is meaningful only if [Series.Single] reports false.
func (s Series) Set() uint32 { return uint32(s >> 1) }

// String names the series for messages.
func (s Series) String() string {
	if num, ok := s.Single(); ok {
		return fmt.Sprintf("metric %d", num)
	}
	return fmt.Sprintf("set %d", s.Set())
}

// Key is the place of a chunk. Its checksum covers it.
type Key struct {
	Slice  storage.Slice
	Device uint32
	Series Series
}
