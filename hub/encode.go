package hub

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// encoder writes a frame for viewers as JSON, or with the same members as CBOR (RFC 8949), where arrays and maps have no
// length in front, since that is not known when they begin.
type encoder struct {
	buf  []byte
	cbor bool
}

// The initial bytes of CBOR, RFC 8949 section 3.
const (
	cborUint    = 0 << 5
	cborNegInt  = 1 << 5
	cborText    = 3 << 5
	cborArray   = 0x9f
	cborMap     = 0xbf
	cborFalse   = 0xf4
	cborTrue    = 0xf5
	cborNull    = 0xf6
	cborFloat32 = 0xfa
	cborFloat64 = 0xfb
	cborBreak   = 0xff
)

func newEncoder(buf []byte, f wire.Format) encoder { return encoder{buf: buf, cbor: f == wire.CBOR} }

// next separates from what stands before, unless that only opens or names what comes.
func (e *encoder) next() {
	if e.cbor || len(e.buf) == 0 {
		return
	}
	switch e.buf[len(e.buf)-1] {
	case '[', '{', ':':
	default:
		e.buf = append(e.buf, ',')
	}
}

func (e *encoder) open(json, cbor byte) {
	if e.cbor {
		e.buf = append(e.buf, cbor)
		return
	}
	e.next()
	e.buf = append(e.buf, json)
}

func (e *encoder) end(json byte) {
	if e.cbor {
		json = cborBreak
	}
	e.buf = append(e.buf, json)
}

func (e *encoder) object()    { e.open('{', cborMap) }
func (e *encoder) endObject() { e.end('}') }
func (e *encoder) array()     { e.open('[', cborArray) }
func (e *encoder) endArray()  { e.end(']') }

// frame begins a frame of a type.
func (e *encoder) frame(kind string) {
	if e.cbor {
		e.buf = append(e.buf, cborMap)
	} else {
		e.buf = append(e.buf, '{')
	}
	e.key("type")
	e.str(kind)
}

func (e *encoder) key(name string) {
	e.str(name)
	if !e.cbor {
		e.buf = append(e.buf, ':')
	}
}

func (e *encoder) str(s string) {
	if e.cbor {
		e.head(cborText, uint64(len(s)))
		e.buf = append(e.buf, s...)
		return
	}
	e.next()
	e.buf = appendString(e.buf, s)
}

func (e *encoder) int(n int64) {
	switch {
	case !e.cbor:
		e.next()
		e.buf = strconv.AppendInt(e.buf, n, 10)
	case n < 0:
		e.head(cborNegInt, uint64(^n))
	default:
		e.head(cborUint, uint64(n))
	}
}

func (e *encoder) bool(b bool) {
	switch {
	case !e.cbor:
		e.next()
		e.buf = strconv.AppendBool(e.buf, b)
	case b:
		e.buf = append(e.buf, cborTrue)
	default:
		e.buf = append(e.buf, cborFalse)
	}
}

// value writes a number that reads back as the same float64, true or false, or a string.
func (e *encoder) value(v *device.Value) {
	switch v.Type {
	case device.Number:
		e.number(v.Float())
	case device.Bool:
		e.bool(v.Float() != 0)
	case device.String:
		e.str(v.Text())
	default:
		e.null()
	}
}

func (e *encoder) null() {
	if e.cbor {
		e.buf = append(e.buf, cborNull)
		return
	}
	e.next()
	e.buf = append(e.buf, "null"...)
}

func (e *encoder) number(f float64) {
	if f == math.Trunc(f) && math.Abs(f) < 1e15 && (f != 0 || !math.Signbit(f)) {
		e.int(int64(f))
		return
	}
	if !e.cbor {
		e.next()
		e.buf = strconv.AppendFloat(e.buf, f, 'g', -1, 64)
		return
	}
	if short := float32(f); float64(short) == f {
		e.buf = binary.BigEndian.AppendUint32(append(e.buf, cborFloat32), math.Float32bits(short))
		return
	}
	e.buf = binary.BigEndian.AppendUint64(append(e.buf, cborFloat64), math.Float64bits(f))
}

// head writes the initial byte of a CBOR item and its argument in the shortest form.
func (e *encoder) head(major byte, n uint64) {
	switch {
	case n < 24:
		e.buf = append(e.buf, major|byte(n))
	case n <= math.MaxUint8:
		e.buf = append(e.buf, major|24, byte(n))
	case n <= math.MaxUint16:
		e.buf = binary.BigEndian.AppendUint16(append(e.buf, major|25), uint16(n))
	case n <= math.MaxUint32:
		e.buf = binary.BigEndian.AppendUint32(append(e.buf, major|26), uint32(n))
	default:
		e.buf = binary.BigEndian.AppendUint64(append(e.buf, major|27), n)
	}
}

// appendString writes s as JSON. Names and ids hold nothing that needs care, so that is tried first.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c >= utf8.RuneSelf {
			q, _ := json.Marshal(s) // a string always marshals
			return append(dst, q...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
