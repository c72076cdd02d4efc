package wire

import (
	"math"

	"telemetryhub/device"
)

// dataCBOR reads [type, seq, t, [[set, dt, v…(, q)]…], [[alias, dt, v(, q)]…](, flags)]. Times of the rows are left
// relative to t.
func (d *Decoder) dataCBOR(b []byte, x *Index, batch *device.Batch, t Type) (Flags, error) {
	d.reserve(len(b)) // a value takes at least one byte
	items, p := cborArray(b, 0)
	if p < 0 || items < 5 {
		return 0, protocolError("%s is an array of at least 5 items", t)
	}
	typ, p := cborUint(b, p, math.MaxUint8)
	if p < 0 || Type(typ) != t {
		return 0, protocolError("not a message of type %s", t)
	}
	seq, p := cborUint(b, p, MaxSeq)
	if p < 0 {
		return 0, protocolError("the sequence number is not an integer from 0 to 2^53-1")
	}
	base, p := cborInt(b, p, MaxTimeMS)
	if p < 0 {
		return 0, protocolError("the time is not an integer between -2^53 and 2^53")
	}
	batch.Seq, batch.BaseMS = seq, base

	sets, p := cborArray(b, p)
	if p < 0 {
		return 0, protocolError("the rows of sets are not an array")
	}
	for row := range sets {
		if p = d.cborSetRow(b, p, x, batch, row); p < 0 {
			return 0, malformed(CBOR)
		}
	}
	singles, p := cborArray(b, p)
	if p < 0 {
		return 0, protocolError("the rows of single metrics are not an array")
	}
	if sets+singles > device.MaxRows {
		return 0, protocolError("%d rows, the limit is %d", sets+singles, device.MaxRows)
	}
	for row := sets; row < sets+singles; row++ {
		if p = d.cborSingleRow(b, p, x, batch, row); p < 0 {
			return 0, malformed(CBOR)
		}
	}

	var flags uint64
	if items > 5 {
		if flags, p = cborUint(b, p, math.MaxUint8); p < 0 {
			return 0, protocolError("the flags are not an integer from 0 to 255")
		}
	}
	for range items - 6 { // of a newer version
		if p = cborSkip(b, p, MaxNesting-1); p < 0 {
			return 0, malformed(CBOR)
		}
	}
	if p != len(b) {
		return 0, protocolError("%d bytes after the message", len(b)-p)
	}
	return Flags(flags), nil
}

// cborSetRow reads one row of a set and returns the position after it, negative if it is not well-formed. A fault in a
// value costs that value only, any other fault the row.
func (d *Decoder) cborSetRow(b []byte, start int, x *Index, batch *device.Batch, row int) int {
	items, p := cborArray(b, start)
	if p < 0 || items < 2 {
		return d.cborRefuse(b, start, row, 1, BadShape)
	}
	number, p := cborUint(b, p, math.MaxUint16)
	if p < 0 {
		return d.cborRefuse(b, start, row, max(items-2, 1), BadShape)
	}
	pos := x.set.at(number)
	if pos < 0 {
		return d.cborRefuse(b, start, row, max(items-2, 1), BadAlias)
	}
	metrics := x.sets[pos].metrics
	width := len(metrics)
	if items != width+2 && items != width+3 {
		return d.cborRefuse(b, start, row, width, BadShape)
	}
	dt, p := cborInt(b, p, 2*device.MaxSpanMS)
	if p < 0 {
		return d.cborRefuse(b, start, row, width, BadTime)
	}

	from, at := len(d.values), p
	values := d.values[from : from+width]
	var q device.Quality
	faulty := false
	for i, m := range metrics {
		c := &x.columns[m]
		var code BadCode
		if p, code = d.cborValue(b, p, c, &values[i]); p < 0 {
			return -1
		}
		faulty = faulty || code != 0
		if values[i].Type == device.Number && c.implausible(values[i].Float()) {
			q = device.OutOfRange
		}
	}
	if items == width+3 {
		sent, next := cborUint(b, p, math.MaxUint8)
		if p = next; p < 0 {
			return d.cborRefuse(b, start, row, width, BadShape)
		}
		q |= device.Quality(sent) & device.FromDevice
	}
	if !d.span(dt) {
		return d.cborRefuse(b, start, row, width, BadTime)
	}
	if faulty {
		d.cborFaults(b, at, x, metrics, row)
	}
	d.values = d.values[:from+width]
	addRow(batch, device.SetRef(pos), dt, values, q)
	return p
}

// cborFaults lists the faults among the values at p, which have been read once and are known to be well-formed. It is
// apart from the first reading because a row that is refused as a whole must be listed once only.
func (d *Decoder) cborFaults(b []byte, p int, x *Index, metrics []int, row int) {
	for i, m := range metrics {
		var v device.Value
		var code BadCode
		if p, code = d.cborValue(b, p, &x.columns[m], &v); code != 0 {
			d.bad.add(Bad{Row: row, Value: i + 1, Count: 1, Code: code})
		}
	}
}

// cborSingleRow reads one row of a single metric in the same way.
func (d *Decoder) cborSingleRow(b []byte, start int, x *Index, batch *device.Batch, row int) int {
	items, p := cborArray(b, start)
	if p < 0 || items < 3 || items > 4 {
		return d.cborRefuse(b, start, row, 1, BadShape)
	}
	alias, p := cborUint(b, p, math.MaxUint16)
	if p < 0 {
		return d.cborRefuse(b, start, row, 1, BadShape)
	}
	pos := x.metric.at(alias)
	if pos < 0 {
		return d.cborRefuse(b, start, row, 1, BadAlias)
	}
	dt, p := cborInt(b, p, 2*device.MaxSpanMS)
	if p < 0 {
		return d.cborRefuse(b, start, row, 1, BadTime)
	}
	from := len(d.values)
	values := d.values[from : from+1]
	c := &x.columns[pos]
	p, code := d.cborValue(b, p, c, &values[0])
	if p < 0 {
		return -1
	}
	if code != 0 {
		return d.cborRefuse(b, start, row, 1, code)
	}
	var q device.Quality
	if values[0].Type == device.Number && c.implausible(values[0].Float()) {
		q = device.OutOfRange
	}
	if items == 4 {
		sent, next := cborUint(b, p, math.MaxUint8)
		if p = next; p < 0 {
			return d.cborRefuse(b, start, row, 1, BadShape)
		}
		q |= device.Quality(sent) & device.FromDevice
	}
	if !d.span(dt) {
		return d.cborRefuse(b, start, row, 1, BadTime)
	}
	d.values = d.values[:from+1]
	addRow(batch, device.SingleRef(pos), dt, values, q)
	return p
}

// cborRefuse lists the row that starts at p as bad and returns the position after it.
func (d *Decoder) cborRefuse(b []byte, p, row, count int, code BadCode) int {
	if p = cborSkip(b, p, MaxNesting-2); p >= 0 {
		d.bad.add(Bad{Row: row, Count: count, Code: code})
	}
	return p
}

// cborValue reads one value of the metric into out, which is absent after a fault. next is negative if the item is not
// well-formed.
func (d *Decoder) cborValue(b []byte, start int, c *column, out *device.Value) (next int, code BadCode) {
	*out = device.Value{}
	ib, arg, p := cborHead(b, start)
	if p < 0 {
		return -1, 0
	}
	var v float64
	switch ib >> 5 {
	case majorUint, majorNint:
		var exact bool
		if v, exact = integer(ib>>5 == majorNint, arg); !exact {
			return p, BadExact
		}
		if c.exp < 0 {
			v /= c.pow
		} else {
			v *= c.pow
		}
	case majorText:
		raw, p := cborText(b, start)
		if p < 0 {
			return -1, 0
		}
		if !takesText(c.kind) {
			return p, BadType
		}
		s, code := d.text(raw)
		if code == 0 {
			*out = device.TextValue(s)
		}
		return p, code
	case 7:
		switch ib {
		case cborNull:
			return p, 0
		case cborTrue, cborFalse:
			if !takesBool(c.kind) {
				return p, BadType
			}
			*out = device.BoolValue(ib == cborTrue)
			return p, 0
		}
		var ok bool
		if v, ok = cborFloat(ib, arg); !ok {
			return p, BadType
		}
		if v-v != 0 { // NaN or infinite
			return p, BadNumber
		}
	default:
		return cborSkip(b, start, MaxNesting-3), BadType
	}
	if !takesNumber(c.kind) {
		return p, BadType
	}
	*out = device.NumberValue(v)
	return p, 0
}

// integer turns the argument of an integer head into a float64. exact is false if there is no such float64.
func integer(negative bool, arg uint64) (v float64, exact bool) {
	if arg < MaxExactInt {
		if negative {
			return float64(-1 - int64(arg)), true
		}
		return float64(int64(arg)), true
	}
	if !negative {
		v = float64(arg)
		return v, v < 1<<64 && uint64(v) == arg
	}
	if arg == math.MaxUint64 {
		return -(1 << 64), true
	}
	v = float64(arg + 1)
	return -v, v < 1<<64 && uint64(v) == arg+1
}
