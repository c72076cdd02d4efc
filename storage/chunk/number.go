package chunk

import (
	"encoding/binary"
	"math"

	"telemetryhub/device"
)

// The forms of the numbers of a column.
const (
	formSame      = 0 // one float64 for all
	formSameInt   = 1 // one scaled integer for all
	formInts      = 2 // scaled integers, each as the difference from the one before
	formFloats32  = 3 // float32 in planes, each combined by exclusive or with the one before
	formFloats64  = 4 // float64 likewise
	maxScaledDiff = 1 << 55
)

// appendNumbers appends float64 bits in the shortest form that gives back each of them exactly.
func (e *Encoder) appendNumbers(bits []uint64) {
	exp, scaled := e.scale(bits)
	if same(bits) {
		if scaled {
			e.body = append(e.body, formSameInt, byte(exp))
			e.body = binary.AppendVarint(e.body, e.ints[0])
			return
		}
		e.body = append(e.body, formSame)
		e.body = binary.LittleEndian.AppendUint64(e.body, bits[0])
		return
	}
	if scaled {
		e.body = append(e.body, formInts, byte(exp))
		before := int64(0)
		for _, i := range e.ints {
			e.body = binary.AppendUvarint(e.body, zigzag(i-before))
			before = i
		}
		return
	}
	if e.narrow(bits) {
		e.body = append(e.body, formFloats32)
		e.appendPlanes(4)
		return
	}
	e.body = append(e.body, formFloats64)
	e.xor(bits)
	e.appendPlanes(8)
}

func same(bits []uint64) bool {
	for _, b := range bits {
		if b != bits[0] {
			return false
		}
	}
	return true
}

// scale fills e.ints with integers that times ten to the exponent are exactly the numbers, and reports whether there
// are such integers for one exponent. It looks for the greatest exponent of at most zero: whole numbers need no other.
func (e *Encoder) scale(bits []uint64) (int8, bool) {
	exp := int8(0)
	for {
		e.ints = e.ints[:0]
		for _, b := range bits {
			i, ok := device.Scale(math.Float64frombits(b), exp)
			if !ok {
				break
			}
			e.ints = append(e.ints, i)
		}
		if len(e.ints) == len(bits) {
			return exp, true
		}
		if exp = exponent(math.Float64frombits(bits[len(e.ints)]), exp-1); exp < -device.MaxExp {
			return 0, false
		}
	}
}

// exponent returns the greatest exponent from the given one down with which v is a scaled integer, or one that is less
// than -device.MaxExp.
func exponent(v float64, exp int8) int8 {
	for ; exp >= -device.MaxExp; exp-- {
		if _, ok := device.Scale(v, exp); ok {
			return exp
		}
	}
	return exp
}

// narrow fills e.ints with the bits of float32 numbers, combined, if each number is exactly one.
func (e *Encoder) narrow(bits []uint64) bool {
	e.ints = e.ints[:0]
	before := uint32(0)
	for _, b := range bits {
		f := math.Float32frombits(math.Float32bits(float32(math.Float64frombits(b))))
		if math.Float64bits(float64(f)) != b {
			return false
		}
		e.ints = append(e.ints, int64(math.Float32bits(f)^before))
		before = math.Float32bits(f)
	}
	return true
}

func (e *Encoder) xor(bits []uint64) {
	e.ints = e.ints[:0]
	before := uint64(0)
	for _, b := range bits {
		e.ints = append(e.ints, int64(b^before))
		before = b
	}
}

// appendPlanes appends the highest byte of every number, then the next, and so on: bytes of one place are alike.
func (e *Encoder) appendPlanes(width int) {
	for shift := 8 * (width - 1); shift >= 0; shift -= 8 {
		for _, i := range e.ints {
			e.body = append(e.body, byte(uint64(i)>>shift))
		}
	}
}

func readNumbers(r *Fields, to places) bool {
	switch form := r.Byte(); form {
	case formSame:
		p := r.Bytes(8)
		if p == nil {
			return false
		}
		b := binary.LittleEndian.Uint64(p)
		to.fill(func() uint64 { return b })
	case formSameInt:
		exp := int8(r.Byte())
		f, ok := device.Unscale(r.Varint(), exp)
		if !ok {
			return false
		}
		to.fill(func() uint64 { return math.Float64bits(f) })
	case formInts:
		return readInts(r, to)
	case formFloats32, formFloats64:
		return readPlanes(r, to, form == formFloats32)
	default:
		return false
	}
	return r.OK()
}

func readInts(r *Fields, to places) bool {
	exp := int8(r.Byte())
	good, at := true, int64(0)
	to.fill(func() uint64 {
		diff := r.Varint()
		if diff > maxScaledDiff || diff < -maxScaledDiff {
			good = false
			return 0
		}
		at += diff
		f, ok := device.Unscale(at, exp)
		if !ok {
			good, at = false, 0
		}
		return math.Float64bits(f)
	})
	return good && r.OK()
}

func readPlanes(r *Fields, to places, narrow bool) bool {
	width := 8
	if narrow {
		width = 4
	}
	p := r.Bytes(uint64(to.count * width))
	if p == nil {
		return false
	}
	i, before := 0, uint64(0)
	to.fill(func() uint64 {
		b := uint64(0)
		for plane := range width {
			b = b<<8 | uint64(p[plane*to.count+i])
		}
		i++
		before ^= b
		if narrow {
			return math.Float64bits(float64(math.Float32frombits(uint32(before))))
		}
		return before
	})
	return true
}
