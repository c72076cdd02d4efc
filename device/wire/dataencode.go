package wire

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"telemetryhub/device"
)

// AppendData appends a data message with the batch to dst.
//
// In CBOR the rows of sets come before the rows of single metrics. So where both give one metric at one time, the single
// one counts as the later. In JSON the values of a set are written one after the other, absent ones as null, and the
// decoder joins them again.
//
// Of the quality of a row only the bits of device.FromDevice are sent. The error says what cannot be sent: a row that
// does not fit the schema, a value that does not fit its metric, NaN, an infinite number, a time out of bounds. It wraps
// [ErrTooBig] if the message is over [MaxFrame]; split the batch then. With an error dst is returned as it was.
func AppendData(dst []byte, f Format, x *Index, b *device.Batch, flags Flags) ([]byte, error) {
	return appendRows(dst, f, x, b, flags, TypeData)
}

// AppendState appends a state message, which has no sequence number, in the same way. b.Seq must be zero.
func AppendState(dst []byte, f Format, x *Index, b *device.Batch, flags Flags) ([]byte, error) {
	return appendRows(dst, f, x, b, flags, TypeState)
}

func appendRows(dst []byte, f Format, x *Index, b *device.Batch, flags Flags, t Type) ([]byte, error) {
	if err := x.checkBatch(b); err != nil {
		return dst, fmt.Errorf("encode %s %d: %w", t, b.Seq, err)
	}
	if t == TypeState && b.Seq != 0 {
		return dst, protocolError("a state message has no sequence number")
	}
	n := len(dst)
	if f == CBOR {
		dst = appendDataCBOR(dst, x, b, flags, t)
	} else {
		dst = appendDataJSON(dst, x, b, flags, t)
	}
	if size := len(dst) - n; size > MaxFrame {
		return dst[:n], fmt.Errorf("encode %s %d: %w: %d bytes", t, b.Seq, ErrTooBig, size)
	}
	return dst, nil
}

// checkBatch refuses what the other side would refuse.
func (x *Index) checkBatch(b *device.Batch) error {
	if b.Seq > MaxSeq || b.BaseMS < -MaxTimeMS || b.BaseMS > MaxTimeMS {
		return protocolError("the sequence number or the time is out of bounds")
	}
	if len(b.Rows) > device.MaxRows {
		return protocolError("%d rows, the limit is %d", len(b.Rows), device.MaxRows)
	}
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	for i := range b.Rows {
		r := &b.Rows[i]
		if err := x.checkRef(r.Ref, len(r.Values)); err != nil {
			return protocolError("row %d: %v", i, err)
		}
		dt := r.TimeMS - b.BaseMS
		first, last = min(first, dt), max(last, dt)
		if dt < -device.MaxSpanMS || dt > device.MaxSpanMS || last-first > device.MaxSpanMS {
			return protocolError("row %d: more than 31 days from the base of the batch or from another row", i)
		}
		for j, v := range r.Values {
			if code := fits(x.column(r.Ref, j), v); code != 0 {
				return protocolError("row %d, value %d of %q: %s", i, j, x.schema.Column(r.Ref, j).Name, code)
			}
		}
	}
	return nil
}

// column returns the column of the i-th value of a row with the given Ref.
func (x *Index) column(r device.Ref, i int) *column {
	if m, ok := r.Single(); ok {
		return &x.columns[m]
	}
	return &x.columns[x.sets[r.Set()].metrics[i]]
}

func fits(c *column, v device.Value) BadCode {
	switch v.Type {
	case device.Absent:
		return 0
	case device.Number:
		if !takesNumber(c.kind) {
			return BadType
		}
		if f := v.Float(); f-f != 0 {
			return BadNumber
		}
		return 0
	case device.Bool:
		if !takesBool(c.kind) {
			return BadType
		}
		return 0
	case device.String:
		if !takesText(c.kind) {
			return BadType
		}
		if len(v.Text()) > device.MaxTextLen || !utf8.ValidString(v.Text()) {
			return BadText
		}
		return 0
	}
	return BadType
}

func appendDataCBOR(dst []byte, x *Index, b *device.Batch, flags Flags, t Type) []byte {
	sets := 0
	for i := range b.Rows {
		if _, single := b.Rows[i].Ref.Single(); !single {
			sets++
		}
	}
	items := uint64(5)
	if flags != 0 {
		items++
	}
	dst = appendCBORHead(dst, majorArray, items)
	dst = appendCBORHead(dst, majorUint, uint64(t))
	dst = appendCBORHead(dst, majorUint, b.Seq)
	dst = appendCBORInt(dst, b.BaseMS)
	dst = appendCBORHead(dst, majorArray, uint64(sets))
	for i := range b.Rows {
		if _, single := b.Rows[i].Ref.Single(); !single {
			dst = appendRowCBOR(dst, x, b, &b.Rows[i])
		}
	}
	dst = appendCBORHead(dst, majorArray, uint64(len(b.Rows)-sets))
	for i := range b.Rows {
		if _, single := b.Rows[i].Ref.Single(); single {
			dst = appendRowCBOR(dst, x, b, &b.Rows[i])
		}
	}
	if flags != 0 {
		dst = appendCBORHead(dst, majorUint, uint64(flags))
	}
	return dst
}

func appendRowCBOR(dst []byte, x *Index, b *device.Batch, r *device.Row) []byte {
	q := r.Quality & device.FromDevice
	items := uint64(len(r.Values)) + 2
	if q != 0 {
		items++
	}
	dst = appendCBORHead(dst, majorArray, items)
	dst = appendCBORHead(dst, majorUint, uint64(x.number(r.Ref)))
	dst = appendCBORInt(dst, r.TimeMS-b.BaseMS)
	for i, v := range r.Values {
		switch v.Type {
		case device.Number:
			dst = appendScaled(dst, x.column(r.Ref, i), v.Float())
		case device.Bool:
			dst = append(dst, cborFalse+byte(v.Float()))
		case device.String:
			dst = appendCBORText(dst, v.Text())
		default:
			dst = append(dst, cborNull)
		}
	}
	if q != 0 {
		dst = appendCBORHead(dst, majorUint, uint64(q))
	}
	return dst
}

// number returns the number that the device uses for the set or metric.
func (x *Index) number(r device.Ref) uint16 {
	if m, ok := r.Single(); ok {
		return x.schema.Metrics[m].Alias
	}
	return x.schema.Sets[r.Set()].Index
}

// appendScaled writes v as an integer times 10^exp if the decoder gets exactly v back, else as a float.
func appendScaled(dst []byte, c *column, v float64) []byte {
	var n, back float64
	if c.exp < 0 {
		n = math.RoundToEven(v * c.pow)
		back = n / c.pow
	} else {
		n = math.RoundToEven(v / c.pow)
		back = n * c.pow
	}
	// Bits are compared because there is no integer for -0.
	if math.Abs(n) <= MaxExactInt && math.Float64bits(back) == math.Float64bits(v) && math.Float64bits(n) != 1<<63 {
		return appendCBORInt(dst, int64(n))
	}
	return appendCBORFloat(dst, v)
}

func appendDataJSON(dst []byte, x *Index, b *device.Batch, flags Flags, t Type) []byte {
	dst = append(dst, `{"m":"`...)
	dst = append(dst, t.String()...)
	dst = append(dst, '"')
	if b.Seq != 0 {
		dst = append(dst, `,"s":`...)
		dst = strconv.AppendUint(dst, b.Seq, 10)
	}
	dst = append(dst, `,"t":`...)
	dst = strconv.AppendInt(dst, b.BaseMS, 10)
	if flags&clockMask != 0 {
		dst = append(dst, `,"tq":`...)
		dst = strconv.AppendUint(dst, uint64(flags.Clock(0)), 10)
	}
	dst = append(dst, `,"r":[`...)
	n := len(dst)
	for i := range b.Rows {
		r := &b.Rows[i]
		for j, v := range r.Values {
			if len(dst) > n {
				dst = append(dst, ',')
			}
			dst = append(dst, '[')
			dst = strconv.AppendUint(dst, uint64(x.schema.Column(r.Ref, j).Alias), 10)
			dst = append(dst, ',')
			dst = strconv.AppendInt(dst, r.TimeMS-b.BaseMS, 10)
			dst = append(dst, ',')
			dst = appendJSONValue(dst, v)
			if q := r.Quality & device.FromDevice; q != 0 {
				dst = append(dst, ',')
				dst = strconv.AppendUint(dst, uint64(q), 10)
			}
			dst = append(dst, ']')
		}
	}
	return append(dst, "]}"...)
}
