package deflate

import (
	"encoding/binary"
	"hash/adler32"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
)

// Coding is a content coding (RFC 9110 section 8.4.1).
type Coding uint8

// The codings: none, zlib (RFC 1950), and gzip (RFC 1952), which is 12 bytes longer.
const (
	Identity Coding = iota
	Zlib
	Gzip
)

// String returns the name as the header Content-Encoding has it.
func (c Coding) String() string { return [...]string{"identity", "deflate", "gzip"}[c] }

// Accepted returns the one of the codings that a header Accept-Encoding likes best, the first of several (RFC 9110 section 12.5.3).
// One that is malformed accepts none.
func Accepted(header []string, codings ...Coding) Coding {
	best, most := Identity, 0.0
	if len(header) == 0 {
		return best
	}
	quality := [...]float64{Identity: -1, Zlib: -1, Gzip: -1} // -1: not named
	others := -1.0
	for _, line := range header {
		for item := range strings.SplitSeq(line, ",") {
			name, q, ok := parseCoding(item)
			switch {
			case !ok:
				return Identity
			case name == "*":
				others = q
			default:
				for c := range quality {
					if strings.EqualFold(name, Coding(c).String()) {
						quality[c] = q
					}
				}
			}
		}
	}
	for _, c := range codings {
		q := quality[c]
		if q < 0 {
			q = others
		}
		if q > most && q >= quality[Identity] {
			best, most = c, q
		}
	}
	return best
}

// parseCoding reads an element of Accept-Encoding, which may be empty.
func parseCoding(item string) (name string, q float64, ok bool) {
	name, weight, weighed := strings.Cut(item, ";")
	name = strings.Trim(name, " \t")
	if !weighed {
		return name, 1, true
	}
	key, value, _ := strings.Cut(strings.Trim(weight, " \t"), "=")
	q, err := strconv.ParseFloat(value, 64)
	return name, q, err == nil && strings.EqualFold(key, "q") && q >= 0 && q <= 1
}

// AppendWhole appends a text with the coding. It reports false, and dst as it was, if that would save fewer bytes than it costs to
// say so, or takes too long.
func (c Coding) AppendWhole(dst, text []byte, cost int) (out []byte, ok bool) {
	if c == Identity {
		return dst, false
	}
	b := NewBody(c)
	if out, ok = appendBlocks(b.appendHead(dst), text, true); ok {
		b.count(text)
		out = b.appendSum(out)
	}
	if !ok || len(out)-len(dst)+cost >= len(text) {
		return out[:len(dst)], false
	}
	return out, true
}

// Body is a body with a coding that is sent piece by piece: whoever has got some can read all their text. It is used by one
// goroutine at a time.
type Body struct {
	coding Coding
	begun  bool
	sum    uint32 // of the text so far
	size   uint32 // modulo 2^32
}

// NewBody returns a body with no piece yet.
func NewBody(c Coding) Body {
	b := Body{coding: c}
	if c == Zlib {
		b.sum = 1
	}
	return b
}

// Append appends the next piece, as it is if a coding would take too long or make it larger.
func (b *Body) Append(dst, text []byte) []byte {
	if b.coding == Identity {
		return append(dst, text...)
	}
	dst = b.appendHead(dst)
	b.count(text)
	return appendPiece(dst, text)
}

// End appends what ends the body.
func (b *Body) End(dst []byte) []byte {
	if b.coding == Identity {
		return dst
	}
	return b.appendSum(append(b.appendHead(dst), 0b011, 0)) // the last block, fixed codes, nothing in it
}

// sumLength is how much longer what AppendShared makes is than the piece.
const sumLength = 8

// AppendShared appends a piece for Body.Take of many bodies with the coding Zlib. What would take too long is in it as it is.
func AppendShared(dst, text []byte) []byte {
	dst = appendPiece(dst, text)
	dst = binary.BigEndian.AppendUint32(dst, adler32.Checksum(text))
	return binary.BigEndian.AppendUint32(dst, uint32(len(text)))
}

// Take makes of what AppendShared has appended from start on the next piece of the body, whose coding is Zlib.
func (b *Body) Take(dst []byte, start int) []byte {
	end := len(dst) - sumLength
	b.sum = joinAdler(b.sum, binary.BigEndian.Uint32(dst[end:]), binary.BigEndian.Uint32(dst[end+4:]))
	return slices.Insert(dst[:end], start, b.appendHead(nil)...)
}

// appendHead appends the head, once.
func (b *Body) appendHead(dst []byte) []byte {
	if b.begun {
		return dst
	}
	b.begun = true
	if b.coding == Gzip {
		return append(dst, 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff) // no flags, no time, from an unknown system
	}
	return append(dst, 0x78, 0x9c) // a window of 32 KiB, no dictionary
}

// count takes a text into the sum.
func (b *Body) count(text []byte) {
	if b.size += uint32(len(text)); b.coding == Gzip {
		b.sum = crc32.Update(b.sum, crc32.IEEETable, text)
	} else {
		b.sum = joinAdler(b.sum, adler32.Checksum(text), uint32(len(text)))
	}
}

func (b *Body) appendSum(dst []byte) []byte {
	if b.coding == Gzip {
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(dst, b.sum), b.size)
	}
	return binary.BigEndian.AppendUint32(dst, b.sum)
}

// joinAdler returns the Adler-32 of two texts in a row, of which the second has the length.
func joinAdler(first, second, length uint32) uint32 {
	const base = 65521 // RFC 1950 section 9
	a, rest := uint64(first&0xffff), uint64(length%base)
	low := (a + uint64(second&0xffff) + base - 1) % base
	high := (uint64(first>>16) + uint64(second>>16) + rest*(a+base-1)) % base
	return uint32(high<<16 | low)
}

// appendPiece appends a text so that all of it can be read without what follows.
func appendPiece(dst, text []byte) []byte {
	out, ok := Append(dst, text)
	switch {
	case ok || len(text) == 0:
		return out
	case len(text) < leastText && isASCII(text):
		return append(AppendEnd(dst, text), Tail...)
	}
	return append(appendStored(dst, text), "\x00"+Tail...)
}

func isASCII(text []byte) bool {
	for _, c := range text {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// appendStored appends a text as it is, in blocks without compression (RFC 1951 section 3.2.4).
func appendStored(dst, text []byte) []byte {
	const most = 1<<16 - 1
	for len(text) > 0 {
		part := text[:min(len(text), most)]
		text = text[len(part):]
		n := uint16(len(part))
		dst = append(dst, 0, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
		dst = append(dst, part...)
	}
	return dst
}
