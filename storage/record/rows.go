package record

import (
	"encoding/binary"
	"fmt"
	"math"

	"telemetryhub/device"
)

// Rows walks the rows of a data record. It keeps its memory from one record to the next, so one Rows serves a whole
// walk over the log. It is not safe for concurrent use.
//
//	var rows record.Rows
//	rows.Reset(rec, schema)
//	for rows.Next() {
//		row := rows.Row()
//	}
//	err := rows.Err()
type Rows struct {
	d      decoder
	schema *device.Schema
	base   int64
	device uint32
	row    device.Row
	values []device.Value
	err    error
}

// Reset goes before the first row of rec, which must be of kind Data and have been written with the schema.
func (r *Rows) Reset(rec *Record, s *device.Schema) {
	r.d = decoder{b: rec.body}
	num := r.d.uint32()
	r.base = rec.ArrivalMS + r.d.varint()
	r.schema, r.device, r.err = s, rec.Device, nil
	if r.d.bad || num != s.Num {
		r.err = fmt.Errorf("%w: data of device %d has schema %d, not %d", ErrBad, rec.Device, num, s.Num)
	}
}

// Base returns the time that the rows were stored relative to.
func (r *Rows) Base() int64 { return r.base }

// Next goes to the next row and reports whether there is one.
func (r *Rows) Next() bool {
	if r.err != nil || len(r.d.b) == 0 {
		return false
	}
	head := r.d.uvarint()
	r.row.Quality = 0
	if head&1 == 1 {
		if q := r.d.bytes(1); len(q) == 1 {
			r.row.Quality = device.Quality(q[0])
		}
	}
	ref := head >> 1
	r.row.Ref = device.Ref(ref)
	r.row.TimeMS = r.base + r.d.varint()
	width := 0
	if ref < 1<<32 {
		width = r.schema.Width(r.row.Ref)
	}
	if r.d.bad || width == 0 {
		return r.fail()
	}
	r.values = r.values[:0]
	for i := range width {
		v, ok := r.value(r.schema.Column(r.row.Ref, i).Exp)
		if !ok {
			return r.fail()
		}
		r.values = append(r.values, v)
	}
	r.row.Values = r.values
	return true
}

func (r *Rows) fail() bool {
	r.err = fmt.Errorf("%w: data of device %d: %w", ErrBad, r.device, errSchema)
	return false
}

func (r *Rows) value(exp int8) (device.Value, bool) {
	u := r.d.uvarint()
	if r.d.bad {
		return device.Value{}, false
	}
	switch {
	case u&3 == formInt:
		f, ok := device.Unscale(unzigzag(u>>2), exp)
		return device.NumberValue(f), ok
	case u == specialAbsent:
		return device.Value{}, true
	case u == specialFalse, u == specialTrue:
		return device.BoolValue(u == specialTrue), true
	case u == specialFloat:
		b := r.d.bytes(8)
		if r.d.bad {
			return device.Value{}, false
		}
		return device.NumberValue(math.Float64frombits(binary.LittleEndian.Uint64(b))), true
	case u&3 == formText:
		b := r.d.bytes(u >> 2)
		return device.TextValue(string(b)), !r.d.bad
	default:
		return device.Value{}, false
	}
}

// Row returns the row that Next went to. It and its values are valid until the next call of Next or Reset.
func (r *Rows) Row() *device.Row { return &r.row }

// Err returns the error that ended the walk, if any. It wraps ErrBad.
func (r *Rows) Err() error { return r.err }
