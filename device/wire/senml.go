package wire

import (
	"math"
	"strconv"
	"unicode/utf8"

	"telemetryhub/device"
)

// SenML packs (RFC 8428), in JSON and in CBOR. What is read: bn, bt, bu, bv, bver, n, u, v, vs, vb, t; ut is ignored. Sums
// (s, bs) and binary values (vd) are not supported.

// The labels of SenML in CBOR (RFC 8428 table 4).
const (
	labelVersion   = -1
	labelBaseName  = -2
	labelBaseTime  = -3
	labelBaseUnit  = -4
	labelBaseValue = -5
	labelBaseSum   = -6
	labelName      = 0
	labelUnit      = 1
	labelValue     = 2
	labelText      = 3
	labelBool      = 4
	labelSum       = 5
	labelTime      = 6
	labelUpdate    = 7
	labelData      = 8

	labelOther = 9 // unknown: to be ignored
)

// senmlVersion is the newest version of SenML that is understood.
const senmlVersion = 10

// senmlNow bounds times in seconds: smaller ones are relative to now (RFC 8428 section 4.5.3).
const senmlNow = 1 << 28

// senmlRecord is the pack so far (what begins with base) and the record at hand.
type senmlRecord struct {
	baseName, baseUnit  string
	baseTime, baseValue float64

	seen       uint32 // labels of this record, from labelBaseSum
	name, unit string
	time       float64
	value      device.Value
	bad        BadCode
}

func (r *senmlRecord) has(label int) bool { return r.seen&(1<<(label-labelBaseSum)) != 0 }

func (d *Decoder) senml(b []byte, nowMS int64) error {
	n, p := cborArray(b, 0)
	if p < 0 {
		return malformed(CBOR)
	}
	if n > device.MaxRows {
		return protocolError("%d records, the limit is %d", n, device.MaxRows)
	}
	var r senmlRecord
	for i := range n {
		var err error
		if p, err = r.read(b, p); err != nil {
			return err
		}
		if p < 0 {
			return protocolError("record %d of the pack is not a map, or not well-formed", i)
		}
		d.resolve(&r, nowMS)
	}
	if p != len(b) {
		return protocolError("something follows the pack")
	}
	return nil
}

// read reads the record at p. The position after it is negative if the record is not well-formed.
func (r *senmlRecord) read(b []byte, p int) (next int, err error) {
	ib, n, p := cborHead(b, p)
	if p < 0 || ib>>5 != majorMap || n > uint64(len(b)) {
		return -1, nil
	}
	r.seen, r.name, r.unit, r.time, r.value, r.bad = 0, "", "", 0, device.Value{}, 0
	var null uint32
	for range n {
		var label int
		if label, p, err = senmlLabel(b, p); p < 0 || err != nil {
			return p, err
		}
		end := cborSkip(b, p, MaxNesting-2)
		if end < 0 {
			return -1, nil
		}
		if label != labelOther {
			if r.has(label) {
				return -1, protocolError("a label stands twice in a SenML record")
			}
			r.seen |= 1 << (label - labelBaseSum)
			if b[p] == cborNull { // as if the label were absent
				null |= 1 << (label - labelBaseSum)
			} else if err := r.field(label, b, p); err != nil {
				return -1, err
			}
		}
		p = end
	}
	r.seen &^= null
	return p, nil
}

// field takes the value at p, which is well-formed. Faults of base fields are errors, because they concern all records
// that follow.
func (r *senmlRecord) field(label int, b []byte, p int) error {
	ok := true
	switch label {
	case labelVersion:
		var v float64
		if v, ok = senmlNumber(b, p); ok && v > senmlVersion {
			return protocolError("SenML version %v is newer than %d", v, senmlVersion)
		}
	case labelBaseName:
		r.baseName, ok = senmlText(b, p, 2*device.MaxNameLen)
	case labelBaseUnit:
		r.baseUnit, ok = senmlText(b, p, device.MaxUnitLen)
	case labelBaseTime:
		r.baseTime, ok = senmlNumber(b, p)
	case labelBaseValue:
		r.baseValue, ok = senmlNumber(b, p)
	case labelName:
		if r.name, ok = senmlText(b, p, 2*device.MaxNameLen); !ok {
			r.fault(BadName)
		}
		return nil
	case labelUnit:
		if r.unit, ok = senmlText(b, p, device.MaxUnitLen); !ok {
			r.fault(BadUnit)
		}
		return nil
	case labelTime:
		if r.time, ok = senmlNumber(b, p); !ok {
			r.fault(BadTime)
		}
		return nil
	case labelValue, labelText, labelBool:
		r.take(label, b, p)
		return nil
	}
	if !ok {
		return protocolError("a base field of a SenML record has the wrong type or is too long")
	}
	return nil
}

// take takes the value of a record.
func (r *senmlRecord) take(label int, b []byte, p int) {
	if r.value.Type != device.Absent {
		r.fault(BadShape) // more than one
		return
	}
	want := map[int]device.Type{labelValue: device.Number, labelText: device.String, labelBool: device.Bool}[label]
	v, _, code := cborScalar(b, p)
	if f, ok := senmlNumber(b, p); ok && code == BadType { // a decimal fraction
		v, code = device.NumberValue(f), 0
	}
	switch {
	case code != 0:
		r.fault(code)
	case v.Type != want:
		r.fault(BadType)
	default:
		r.value = v
	}
}

func (r *senmlRecord) fault(code BadCode) {
	if r.bad == 0 {
		r.bad = code
	}
}

// resolve turns the record into readings.
func (d *Decoder) resolve(r *senmlRecord, nowMS int64) {
	out := Reading{Value: r.value, Unit: r.unit, Bad: r.bad}
	if !r.has(labelUnit) {
		out.Unit = r.baseUnit
	}
	valued := r.has(labelValue) || r.has(labelText) || r.has(labelBool)
	switch {
	case out.Bad != 0:
	case !valued && !r.has(labelSum) && !r.has(labelData):
		if !r.has(labelName) {
			return // only base fields
		}
		out.Bad = BadEmpty
	case !valued && r.has(labelSum):
		out.Bad = BadSum
	case r.has(labelData):
		out.Bad = BadData
	case CheckUnit(out.Unit) != nil:
		out.Bad, out.Unit = BadUnit, ""
	}
	if out.Bad == 0 && out.Value.Type == device.Number {
		v := out.Value.Float()
		if r.baseValue != 0 {
			v += r.baseValue
		}
		if out.Unit == "%" { // a ratio in SenML; everywhere else it means percent
			out.Unit, v = "/100", hundredfold(v)
		}
		out.Value = device.NumberValue(v)
		if v-v != 0 {
			out.Bad = BadNumber
		}
	}
	var ok bool
	if out.TimeMS, ok = senmlTime(r.baseTime+r.time, nowMS); !ok && out.Bad == 0 {
		out.Bad = BadTime
	}
	if out.Bad != 0 {
		out.Value = device.Value{}
	}
	out.name(r.baseName + r.name)
	d.readings = append(d.readings, out)
	if valued && r.has(labelSum) { // the value stands without its sum
		out.Value, out.Bad = device.Value{}, BadSum
		d.readings = append(d.readings, out)
	}
}

// senmlTime turns the time of a record in seconds into Unix milliseconds, zero for now.
func senmlTime(s float64, nowMS int64) (ms int64, ok bool) {
	if s == 0 {
		return 0, true
	}
	f := math.RoundToEven(s * 1000)
	if !(math.Abs(f) <= MaxTimeMS/2) {
		return 0, false
	}
	ms = int64(f)
	if s < senmlNow {
		ms += nowMS
	}
	return ms, true
}

// hundredfold moves the decimal point of v, so that 0.57 becomes 57 and not 56.99999999999999.
func hundredfold(v float64) float64 {
	var buf [32]byte
	text := strconv.AppendFloat(buf[:0], v, 'e', -1, 64)
	for i, c := range text {
		if c == 'e' {
			exp, err := strconv.Atoi(string(text[i+1:]))
			if err != nil {
				break
			}
			return parseFloat(strconv.AppendInt(text[:i+1], int64(exp+2), 10))
		}
	}
	return v // infinite
}

// senmlLabel reads the key at p. In CBOR the labels are numbers, in JSON texts; both are taken in both.
func senmlLabel(b []byte, p int) (label, next int, err error) {
	if n, next := cborInt(b, p, 1<<31); next >= 0 {
		if n < labelBaseSum || n > labelData {
			n = labelOther
		}
		return int(n), next, nil
	}
	key, next := cborText(b, p)
	if next < 0 {
		return 0, -1, nil
	}
	switch string(key) {
	case "bver":
		label = labelVersion
	case "bn":
		label = labelBaseName
	case "bt":
		label = labelBaseTime
	case "bu":
		label = labelBaseUnit
	case "bv":
		label = labelBaseValue
	case "bs":
		label = labelBaseSum
	case "n":
		label = labelName
	case "u":
		label = labelUnit
	case "v":
		label = labelValue
	case "vs":
		label = labelText
	case "vb":
		label = labelBool
	case "s":
		label = labelSum
	case "t":
		label = labelTime
	case "ut":
		label = labelUpdate
	case "vd":
		label = labelData
	default:
		// RFC 8428 section 4.4: such a field changes the meaning of the others.
		if n := len(key); n > 0 && key[n-1] == '_' {
			return 0, -1, protocolError("the SenML field %.64q must be understood and is not", key)
		}
		label = labelOther
	}
	return label, next, nil
}

// senmlText reads a text of at most limit bytes.
func senmlText(b []byte, p, limit int) (string, bool) {
	text, p := cborText(b, p)
	if p < 0 || len(text) > limit || !utf8.Valid(text) {
		return "", false
	}
	return string(text), true
}

// senmlNumber reads an integer, a float, or a decimal fraction (tag 4, which RFC 8428 section 6 allows).
func senmlNumber(b []byte, p int) (v float64, ok bool) {
	ib, arg, next := cborHead(b, p)
	switch {
	case next < 0:
		return 0, false
	case ib>>5 == majorUint || ib>>5 == majorNint:
		return integer(ib>>5 == majorNint, arg)
	case ib>>5 == majorTag && arg == 4:
		n, p := cborArray(b, next)
		if p < 0 || n != 2 {
			return 0, false
		}
		exp, p := cborInt(b, p, 1000)
		if p < 0 {
			return 0, false
		}
		mantissa, p := cborInt(b, p, math.MaxInt64)
		if p < 0 {
			return 0, false
		}
		var buf [40]byte
		text := append(strconv.AppendInt(buf[:0], mantissa, 10), 'e')
		v = parseFloat(strconv.AppendInt(text, exp, 10))
	default:
		if v, ok = cborFloat(ib, arg); !ok {
			return 0, false
		}
	}
	return v, v-v == 0
}
