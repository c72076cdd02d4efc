package wire

import (
	"encoding/binary"
	"math"
)

func appendCBORHead(dst []byte, major byte, arg uint64) []byte {
	ib := major << 5
	switch {
	case arg < 24:
		return append(dst, ib|byte(arg))
	case arg <= math.MaxUint8:
		return append(dst, ib|24, byte(arg))
	case arg <= math.MaxUint16:
		return append(dst, ib|25, byte(arg>>8), byte(arg))
	case arg <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, ib|26), uint32(arg))
	}
	return binary.BigEndian.AppendUint64(append(dst, ib|27), arg)
}

func appendCBORInt(dst []byte, v int64) []byte {
	if v < 0 {
		return appendCBORHead(dst, majorNint, uint64(-1-v))
	}
	return appendCBORHead(dst, majorUint, uint64(v))
}

// appendCBORFloat writes v in four bytes if that is exact, else in eight.
func appendCBORFloat(dst []byte, v float64) []byte {
	if f := float32(v); math.Float64bits(float64(f)) == math.Float64bits(v) {
		return binary.BigEndian.AppendUint32(append(dst, cborFloat32), math.Float32bits(f))
	}
	return binary.BigEndian.AppendUint64(append(dst, cborFloat64), math.Float64bits(v))
}

func appendCBORText(dst []byte, s string) []byte {
	return append(appendCBORHead(dst, majorText, uint64(len(s))), s...)
}
