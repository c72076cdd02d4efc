package chunk

import (
	"math"

	"telemetryhub/device"
	"telemetryhub/storage"
)

// Rows is what a chunk holds: at least one instant of a series, by time and then by place in the log.
type Rows struct {
	// Times are filed times in Unix milliseconds, ascending, all in the slice of the chunk.
	Times []int64
	// Order is the place of each row in the log, counted in any way that the writer chooses. Nil if the writer had no
	// need for it.
	Order []uint32
	// Quality is nil if every row is good.
	Quality []device.Quality
	// Original is the device's own time where it was replaced, elsewhere equal to Times. Nil if no time was replaced.
	Original []int64
	Columns  []Column
}

// Column holds the values of one metric, one for each row.
type Column struct {
	Metric uint32
	// Types is nil if every value is a number.
	Types []device.Type
	// Bits holds the bits of numbers, 0 or 1 for truth values, and for texts their place in Texts.
	Bits  []uint64
	Texts []string
}

// Value returns the value of a row.
func (c *Column) Value(row int) device.Value {
	typ := device.Number
	if c.Types != nil {
		typ = c.Types[row]
	}
	switch typ {
	case device.Number:
		return device.NumberValue(math.Float64frombits(c.Bits[row]))
	case device.Bool:
		return device.BoolValue(c.Bits[row] != 0)
	case device.String:
		return device.TextValue(c.Texts[c.Bits[row]])
	default:
		return device.Value{}
	}
}

// Origin says where the rows of a chunk come from.
type Origin struct {
	// First and Last are the least and the greatest position in the log.
	First, Last storage.Position
	// FirstArrivalMS and LastArrivalMS are the least and the greatest arrival time in Unix milliseconds.
	FirstArrivalMS, LastArrivalMS int64
	// TimeQuality is the worst of all rows.
	TimeQuality device.TimeQuality
}

// Header is what is known of a chunk before its rows are decoded.
type Header struct {
	Key
	Origin
	// Rows is how many there are.
	Rows int
	// FirstMS and LastMS are the times of the first and the last row.
	FirstMS, LastMS int64
	// Metrics are those of the columns.
	Metrics []uint32
}
