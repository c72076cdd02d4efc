package wire

import (
	"math"
	"slices"
	"unicode/utf8"

	"telemetryhub/device"
)

// Decoder decodes frames with readings and reuses its memory from one frame to the next. The zero value is ready to
// use. It is for one goroutine at a time.
//
// A decoder keeps memory for the largest frame it has seen: up to 4 MiB after a frame of [MaxFrame]. Where there are
// many connections, share decoders through a pool.
type Decoder struct {
	values   []device.Value
	bad      badList
	rows     []jsonRow
	prints   []uint64
	texts    []string
	scratch  []byte
	readings []Reading

	// The times of the message at hand, relative to its base: the earliest and the latest row so far.
	first, last int64
}

// Data decodes a data message into b, whose Rows it reuses. The values of the rows are valid until the next call of a
// method of the decoder; texts are copies and stay valid. TimeMS of a row is the base of the message plus its own part;
// it is relative to arrival if [Relative] says so of b.BaseMS.
//
// bad lists faults of single rows and values; all others stand in b. It is valid until the next call. An error means
// that the message as a whole is not to be believed; it wraps [ErrProtocol] or [ErrTooBig], and b is then undefined.
//
// device.OutOfRange is set on every row that has a value outside the plausible range of its metric.
func (d *Decoder) Data(f Format, frame []byte, x *Index, b *device.Batch) (flags Flags, bad []Bad, err error) {
	return d.message(f, frame, x, b, TypeData)
}

// State decodes a state message, which has the form of a data message without a number, in the same way.
func (d *Decoder) State(f Format, frame []byte, x *Index, b *device.Batch) (flags Flags, bad []Bad, err error) {
	return d.message(f, frame, x, b, TypeState)
}

func (d *Decoder) message(f Format, frame []byte, x *Index, b *device.Batch, t Type) (Flags, []Bad, error) {
	if err := checkSize(frame); err != nil {
		return 0, nil, err
	}
	d.bad = d.bad[:0]
	d.first, d.last = math.MaxInt64, math.MinInt64
	b.Seq, b.BaseMS, b.Rows = 0, 0, b.Rows[:0]
	decode := d.dataJSON
	if f == CBOR {
		decode = d.dataCBOR
	}
	flags, err := decode(frame, x, b, t)
	if err != nil {
		return 0, nil, err
	}
	if t == TypeState && b.Seq != 0 {
		return 0, nil, protocolError("a state message has no sequence number")
	}
	for i := range d.bad {
		d.bad[i].Seq = b.Seq
	}
	return flags, d.bad, nil
}

// reserve makes room for n values, so that rows can point into d.values while it fills.
func (d *Decoder) reserve(n int) {
	if cap(d.values) < n {
		d.values = make([]device.Value, 0, n)
	}
	d.values = d.values[:0]
}

// span reports whether a row at dt keeps within device.MaxSpanMS of the base and of all rows before it.
func (d *Decoder) span(dt int64) bool {
	if dt < -device.MaxSpanMS || dt > device.MaxSpanMS {
		return false
	}
	first, last := min(d.first, dt), max(d.last, dt)
	if last-first > device.MaxSpanMS {
		return false
	}
	d.first, d.last = first, last
	return true
}

// text returns b as a string. Short texts of metrics repeat ("open", "closed"), so the last few are kept.
func (d *Decoder) text(b []byte) (string, BadCode) {
	if len(b) > device.MaxTextLen || !utf8.Valid(b) {
		return "", BadText
	}
	if len(b) == 0 {
		return "", 0
	}
	const slots, longest = 32, 64
	if len(b) > longest {
		return string(b), 0
	}
	if d.texts == nil {
		d.texts = make([]string, slots)
	}
	slot := &d.texts[(len(b)*7+int(b[0])*3+int(b[len(b)-1]))%slots]
	if *slot != string(b) {
		*slot = string(b)
	}
	return *slot, 0
}

// takesNumber, takesBool and takesText say which values fit a kind.
func takesNumber(k device.Kind) bool { return k != device.Text }
func takesBool(k device.Kind) bool   { return k == device.State }
func takesText(k device.Kind) bool   { return k == device.State || k == device.Text }

// implausible is the opposite of device.Metric.Plausible.
func (c *column) implausible(v float64) bool { return v < c.lo || v > c.hi }

// addRow appends a row without copying its values. The base of the batch must be set.
func addRow(b *device.Batch, ref device.Ref, dt int64, values []device.Value, q device.Quality) {
	b.Rows = append(b.Rows, device.Row{Ref: ref, TimeMS: b.BaseMS + dt, Values: slices.Clip(values), Quality: q})
}
