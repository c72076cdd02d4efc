package spool

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"

	"telemetryhub/device"
)

const (
	version    = 1
	marker     = 0x1ed5 // bytes D5 1E
	headerSize = 44
	maxRecord  = headerSize + MaxBody
	// maxPosition keeps sums of positions far from overflow. No device gets there.
	maxPosition = 1 << 62
)

// Kind tells records apart. The numbers are stored: never renumber them.
type Kind uint8

// The kinds of record that a Reader hands out.
const (
	Data Kind = 1
	Gap  Kind = 2

	declare Kind = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is what every record begins with.
type header struct {
	kind  Kind
	pos   uint64
	ctx   uint64
	from  int64
	span  uint32
	count uint32
}

func (h *header) to() int64 { return h.from + int64(h.span) }

// contextID names a context by its content.
func contextID(body []byte) uint64 {
	sum := sha256.Sum256(body)
	return binary.LittleEndian.Uint64(sum[:])
}

// seedOf starts the checksum of every record of the segment with this nonce.
func seedOf(nonce uint64) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], nonce)
	return crc32.Update(0, castagnoli, b[:])
}

// appendRecord appends the encoded record to dst.
func appendRecord(dst []byte, seed uint32, h header, body []byte) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint16(dst, marker)
	dst = append(dst, byte(h.kind), 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(body)))
	dst = binary.LittleEndian.AppendUint64(dst, h.pos)
	dst = binary.LittleEndian.AppendUint64(dst, h.ctx)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.from))
	dst = binary.LittleEndian.AppendUint32(dst, h.span)
	dst = binary.LittleEndian.AppendUint32(dst, h.count)
	sum := crc32.Update(crc32.Update(seed, castagnoli, dst[start:]), castagnoli, body)
	dst = binary.LittleEndian.AppendUint32(dst, sum)
	return append(dst, body...)
}

// parseHeader reads b, which holds at least headerSize bytes. It reports false if no record can begin like this. The
// checksum is not looked at.
func parseHeader(b []byte) (h header, length int, ok bool) {
	le := binary.LittleEndian
	h = header{
		kind: Kind(b[2]), pos: le.Uint64(b[8:]), ctx: le.Uint64(b[16:]),
		from: int64(le.Uint64(b[24:])), span: le.Uint32(b[32:]), count: le.Uint32(b[36:]),
	}
	n := le.Uint32(b[4:])
	ok = le.Uint16(b) == marker && h.kind >= Data && h.kind <= declare && b[3] == 0 && n <= MaxBody &&
		h.pos > 0 && h.pos < maxPosition
	return h, int(n), ok
}

// sound reports whether the checksum of the whole record in b holds.
func sound(seed uint32, b []byte) bool {
	sum := crc32.Update(crc32.Update(seed, castagnoli, b[:40]), castagnoli, b[headerSize:])
	return sum == binary.LittleEndian.Uint32(b[40:])
}

const (
	gapSize  = 40
	maxCause = 64
)

// loss is what a gap record says, in positions.
type loss struct {
	first, last uint64
	count       uint64
	from, to    int64
	cause       device.Cause
}

func (l *loss) encode() []byte {
	b := make([]byte, 0, gapSize+len(l.cause))
	for _, v := range [...]uint64{l.first, l.last, l.count, uint64(l.from), uint64(l.to)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return append(b, l.cause...)
}

func decodeLoss(b []byte) (l loss, ok bool) {
	if len(b) < gapSize || len(b) > gapSize+maxCause {
		return l, false
	}
	le := binary.LittleEndian
	l = loss{
		first: le.Uint64(b), last: le.Uint64(b[8:]), count: le.Uint64(b[16:]),
		from: int64(le.Uint64(b[24:])), to: int64(le.Uint64(b[32:])), cause: device.Cause(b[gapSize:]),
	}
	return l, l.first <= l.last && l.last < maxPosition
}

// add counts one more dropped record into l. What a dropped gap record stood for is not forgotten; its range is taken over
// only where the two touch, so that l never covers records that are still there.
func (l *loss) add(h header, body []byte) {
	if h.kind == Gap {
		g, ok := decodeLoss(body)
		if !ok {
			return
		}
		if g.last+1 >= l.first && g.first <= l.last+1 {
			l.first, l.last = min(l.first, g.first), max(l.last, g.last)
		}
		l.count += g.count
		l.widen(g.from, g.to)
		return
	}
	l.count += uint64(h.count)
	l.widen(h.from, h.to())
}

func (l *loss) widen(from, to int64) {
	if from == 0 && to == 0 {
		return // times unknown
	}
	if l.from == 0 && l.to == 0 {
		l.from, l.to = from, to
		return
	}
	l.from, l.to = min(l.from, from), max(l.to, to)
}
