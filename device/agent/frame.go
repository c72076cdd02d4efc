package agent

import (
	"encoding/binary"
	"fmt"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// frameRoom is what a number in the stream may add to a frame.
const frameRoom = 64

// dataHead is how a data message without a number begins in CBOR, behind the array head: type 4, number 0.
const dataHead = "\x04\x00"

// A batch that was taken before the time was known has one item more in the spool: the mark of its base time, by which that is
// restated when the batch is sent. Its flags are one byte, the item before.
const (
	markedArray = 0x80 | 7
	markSize    = 9
	uint64Head  = 0x1b
)

// appendMark marks a data message with six items.
func appendMark(body []byte, mark uint64) []byte {
	body[0] = markedArray
	return binary.BigEndian.AppendUint64(append(body, uint64Head), mark)
}

// restate returns a spooled batch without its mark and says when its base time was: by the clock if that is known by now, else
// relative to sending (PROTOCOL.md section 5.3). The time of a batch of another boot stays as it is. A batch without a mark is
// returned itself.
func restate(body []byte, c *Clock, now time.Time) []byte {
	flags := len(body) - markSize - 1
	if flags < 4 || body[0] != markedArray || body[flags+1] != uint64Head {
		return body
	}
	out := append(make([]byte, 0, len(body)), body[:flags+1]...)
	out[0]-- // one item less
	age, ok := c.age(binary.BigEndian.Uint64(body[flags+2:]))
	size := intSize(body[3:flags])
	if !ok || size == 0 {
		return out
	}
	ms, q := c.At(now.Add(-age))
	if q == device.ClockNone {
		ms = -age.Milliseconds()
	}
	out = appendInt(out[:3], ms)
	out = append(out, body[3+size:flags]...)
	return append(out, byte(wire.ClockFlag(q)))
}

// intSize returns the size of the CBOR integer that p begins with, zero if it is none.
func intSize(p []byte) int {
	if len(p) == 0 || p[0] >= 0x40 {
		return 0
	}
	size := 1
	if n := p[0] & 0x1f; n >= 24 && n <= 27 {
		size += 1 << (n - 24)
	}
	if size > len(p) {
		return 0
	}
	return size
}

// appendInt appends a CBOR integer in its shortest form. A negative n is stored as -1-n (RFC 8949 section 3.1).
func appendInt(dst []byte, n int64) []byte {
	major, u := byte(0), uint64(n)
	if n < 0 {
		major, u = 0x20, uint64(-1-n)
	}
	switch {
	case u < 24:
		return append(dst, major|byte(u))
	case u <= 0xff:
		return append(dst, major|0x18, byte(u))
	case u <= 0xffff:
		return binary.BigEndian.AppendUint16(append(dst, major|0x19), uint16(u))
	case u <= 0xffffffff:
		return binary.BigEndian.AppendUint32(append(dst, major|0x1a), uint32(u))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|uint64Head), u)
}

// renumber appends to dst the CBOR data message in body, which has no number, with the number seq (PROTOCOL.md section 5.1:
// the number is the second item). So a spooled batch is sent without being decoded.
func renumber(dst, body []byte, seq uint64) ([]byte, error) {
	if len(body) < 4 || body[0]&0xe0 != 0x80 || body[0]&0x1f > 23 || string(body[1:3]) != dataHead {
		return dst, fmt.Errorf("spooled batch of %d bytes is not a data message", len(body))
	}
	dst = appendInt(append(dst, body[0], dataHead[0]), int64(seq)) // at most wire.MaxSeq
	return append(dst, body[3:]...), nil
}
