package wire

import (
	"encoding/binary"
	"math"
)

// Major types of CBOR (RFC 8949 section 3.1) and the initial bytes of the simple values in use.
const (
	majorUint  = 0
	majorNint  = 1
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6

	cborFalse   = 0xf4
	cborTrue    = 0xf5
	cborNull    = 0xf6
	cborFloat16 = 0xf9
	cborFloat32 = 0xfa
	cborFloat64 = 0xfb
)

// cborHead reads the head of the item at p: its initial byte, its argument, and the position after the head, which is
// negative if the head is not well-formed. Indefinite lengths are refused.
func cborHead(b []byte, p int) (ib byte, arg uint64, next int) {
	if uint(p) < uint(len(b)) {
		if ib = b[p]; ib&0x1f < 24 {
			return ib, uint64(ib & 0x1f), p + 1
		}
	}
	return cborLongHead(b, p)
}

func cborLongHead(b []byte, p int) (ib byte, arg uint64, next int) {
	if uint(p) >= uint(len(b)) {
		return 0, 0, -1
	}
	ib = b[p]
	rest := b[p+1:]
	switch ib & 0x1f {
	case 24:
		if len(rest) < 1 || (ib == 0xf8 && rest[0] < 32) { // two bytes for a small simple value: not well-formed
			return 0, 0, -1
		}
		return ib, uint64(rest[0]), p + 2
	case 25:
		if len(rest) < 2 {
			return 0, 0, -1
		}
		return ib, uint64(binary.BigEndian.Uint16(rest)), p + 3
	case 26:
		if len(rest) < 4 {
			return 0, 0, -1
		}
		return ib, uint64(binary.BigEndian.Uint32(rest)), p + 5
	case 27:
		if len(rest) < 8 {
			return 0, 0, -1
		}
		return ib, binary.BigEndian.Uint64(rest), p + 9
	}
	if ib&0x1f < 24 {
		return ib, uint64(ib & 0x1f), p + 1
	}
	return 0, 0, -1
}

// cborSkip returns the position after the item at p, or a negative number if it is not well-formed or nested deeper
// than depth.
func cborSkip(b []byte, p, depth int) int {
	ib, arg, p := cborHead(b, p)
	if p < 0 {
		return -1
	}
	switch ib >> 5 {
	case majorBytes, majorText:
		if arg > uint64(len(b)-p) {
			return -1
		}
		return p + int(arg)
	case majorArray, majorMap:
		if ib>>5 == majorMap {
			if arg > uint64(len(b)) {
				return -1
			}
			arg *= 2
		}
		if depth <= 0 || arg > uint64(len(b)-p) {
			return -1
		}
		for ; arg > 0; arg-- {
			if p = cborSkip(b, p, depth-1); p < 0 {
				return -1
			}
		}
	case majorTag:
		if depth <= 0 {
			return -1
		}
		return cborSkip(b, p, depth-1)
	}
	return p
}

// cborArray reads the head of an array at p and returns the number of its items.
func cborArray(b []byte, p int) (n, next int) {
	ib, arg, p := cborHead(b, p)
	if p < 0 || ib>>5 != majorArray || arg > uint64(len(b)-p) {
		return 0, -1
	}
	return int(arg), p
}

// cborInt reads an integer at p that lies between -limit and limit. If the item is no such integer, next is negative.
func cborInt(b []byte, p int, limit uint64) (v int64, next int) {
	ib, arg, p := cborHead(b, p)
	if p < 0 || arg > limit {
		return 0, -1
	}
	switch ib >> 5 {
	case majorUint:
		return int64(arg), p
	case majorNint:
		if arg == limit {
			return 0, -1
		}
		return -1 - int64(arg), p
	}
	return 0, -1
}

// cborUint reads an integer at p from 0 to limit. If the item is no such integer, next is negative.
func cborUint(b []byte, p int, limit uint64) (v uint64, next int) {
	ib, arg, p := cborHead(b, p)
	if p < 0 || ib>>5 != majorUint || arg > limit {
		return 0, -1
	}
	return arg, p
}

// cborText returns the bytes of the text string at p, which alias b. Whether they are UTF-8 is not checked.
func cborText(b []byte, p int) (text []byte, next int) {
	ib, arg, p := cborHead(b, p)
	if p < 0 || ib>>5 != majorText || arg > uint64(len(b)-p) {
		return nil, -1
	}
	return b[p : p+int(arg)], p + int(arg)
}

// cborFloat turns the argument of a float head into its value. ok is false if ib is not the head of a float.
func cborFloat(ib byte, arg uint64) (v float64, ok bool) {
	switch ib {
	case cborFloat64:
		return math.Float64frombits(arg), true
	case cborFloat32:
		return float64(math.Float32frombits(uint32(arg))), true
	case cborFloat16:
		return float16(uint16(arg)), true
	}
	return 0, false
}

// float16 widens a half-precision float, which is always exact (RFC 8949 appendix D).
func float16(h uint16) float64 {
	exp, frac := int(h>>10&0x1f), float64(h&0x3ff)
	var v float64
	switch exp {
	case 0:
		v = math.Ldexp(frac, -24)
	case 31:
		v = math.Inf(1)
		if frac != 0 {
			v = math.NaN()
		}
	default:
		v = math.Ldexp(frac+1024, exp-25)
	}
	if h&0x8000 != 0 {
		return -v
	}
	return v
}
