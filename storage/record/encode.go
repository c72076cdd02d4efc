package record

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"telemetryhub/device"
)

const (
	groupHeader = 1 + 8
	crcLen      = 4

	flagTimeReplaced = 1 << 2

	formInt     = 0
	formSpecial = 1
	formText    = 2

	specialAbsent = 0<<2 | formSpecial
	specialFalse  = 1<<2 | formSpecial
	specialTrue   = 2<<2 | formSpecial
	specialFloat  = 3<<2 | formSpecial
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Group builds one group. The zero value is empty; Reset makes it ready. It is not safe for concurrent use.
type Group struct {
	buf   []byte
	base  int64
	crc   uint32 // of the base
	count int
	head  []byte
}

// Reset empties g, keeps its memory, and sets the time that arrivals are stored relative to.
func (g *Group) Reset(baseMS int64) {
	g.buf = append(g.buf[:0], Version)
	g.buf = binary.LittleEndian.AppendUint64(g.buf, uint64(baseMS))
	g.base = baseMS
	g.crc = crc32.Update(0, castagnoli, g.buf[1:groupHeader])
	g.count = 0
}

// Bytes returns the group, valid until the next call of a method.
func (g *Group) Bytes() []byte { return g.buf }

// Len returns the size in bytes.
func (g *Group) Len() int { return len(g.buf) }

// Count returns the number of records.
func (g *Group) Count() int { return g.count }

// MaxOverhead is the most that a record is longer than its body.
const MaxOverhead = 2*binary.MaxVarintLen32 + 2*binary.MaxVarintLen64 + binary.MaxVarintLen32 + crcLen + 2

// Append adds a record whose body was made by [AppendRows] or [AppendGap].
func (g *Group) Append(h *Header, body []byte) {
	flags := byte(h.TimeQuality) & 3
	if h.TimeReplaced {
		flags |= flagTimeReplaced
	}
	b := append(g.head[:0], byte(h.Kind), flags)
	b = binary.AppendUvarint(b, uint64(h.Device))
	b = binary.AppendUvarint(b, uint64(h.Stream))
	b = binary.AppendUvarint(b, h.Seq)
	b = binary.AppendVarint(b, h.ArrivalMS-g.base)

	g.head = b

	crc := crc32.Update(g.crc, castagnoli, b)
	crc = crc32.Update(crc, castagnoli, body)
	g.buf = binary.AppendUvarint(g.buf, uint64(len(b)+len(body)))
	g.buf = binary.LittleEndian.AppendUint32(g.buf, crc)
	g.buf = append(g.buf, b...)
	g.buf = append(g.buf, body...)
	g.count++
}

// AppendRows appends the body of a data record to dst. Every row must fit the schema: its Ref is valid and it has as
// many values as the set has metrics. arrivalMS must be that of the header.
func AppendRows(dst []byte, s *device.Schema, arrivalMS, baseMS int64, rows []device.Row) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.Num))
	dst = binary.AppendVarint(dst, baseMS-arrivalMS)
	for i := range rows {
		row := &rows[i]
		head := uint64(row.Ref) << 1
		if row.Quality != 0 {
			dst = binary.AppendUvarint(dst, head|1)
			dst = append(dst, byte(row.Quality))
		} else {
			dst = binary.AppendUvarint(dst, head)
		}
		dst = binary.AppendVarint(dst, row.TimeMS-baseMS)
		for c := range row.Values {
			dst = appendValue(dst, &row.Values[c], s.Column(row.Ref, c).Exp)
		}
	}
	return dst
}

func appendValue(dst []byte, v *device.Value, exp int8) []byte {
	switch v.Type {
	case device.Number:
		if i, ok := device.Scale(v.Float(), exp); ok {
			return binary.AppendUvarint(dst, zigzag(i)<<2|formInt)
		}
		dst = append(dst, specialFloat)
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v.Float()))
	case device.Bool:
		if v.Float() != 0 {
			return append(dst, specialTrue)
		}
		return append(dst, specialFalse)
	case device.String:
		dst = binary.AppendUvarint(dst, uint64(len(v.Text()))<<2|formText)
		return append(dst, v.Text()...)
	default:
		return append(dst, specialAbsent)
	}
}

// AppendGap appends the body of a gap record to dst.
func AppendGap(dst []byte, g *device.Gap) []byte {
	dst = binary.AppendUvarint(dst, g.FromSeq)
	dst = binary.AppendUvarint(dst, g.ToSeq)
	dst = binary.AppendUvarint(dst, g.Count)
	dst = binary.AppendVarint(dst, g.FromMS)
	dst = binary.AppendVarint(dst, g.ToMS)
	dst = binary.AppendUvarint(dst, uint64(len(g.Cause)))
	return append(dst, g.Cause...)
}

func zigzag(i int64) uint64   { return uint64(i<<1) ^ uint64(i>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }
