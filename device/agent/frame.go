package agent

import (
	"encoding/binary"
	"fmt"
)

// frameRoom is what a number in the stream may add to a frame.
const frameRoom = 64

// dataHead is how a data message without a number begins in CBOR, behind the array head: type 4, number 0.
const dataHead = "\x04\x00"

// renumber appends to dst the CBOR data message in body, which has no number, with the number seq (PROTOCOL.md section 5.1:
// the number is the second item). So a spooled batch is sent without being decoded.
func renumber(dst, body []byte, seq uint64) ([]byte, error) {
	if len(body) < 4 || body[0]&0xe0 != 0x80 || body[0]&0x1f > 23 || string(body[1:3]) != dataHead {
		return dst, fmt.Errorf("spooled batch of %d bytes is not a data message", len(body))
	}
	dst = append(dst, body[0], dataHead[0])
	switch {
	case seq < 24:
		dst = append(dst, byte(seq))
	case seq <= 0xff:
		dst = append(dst, 0x18, byte(seq))
	case seq <= 0xffff:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x19), uint16(seq))
	case seq <= 0xffffffff:
		dst = binary.BigEndian.AppendUint32(append(dst, 0x1a), uint32(seq))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x1b), seq)
	}
	return append(dst, body[3:]...), nil
}
