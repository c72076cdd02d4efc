// Package deflate makes what is sent to viewers smaller, by the blocks of DEFLATE (RFC 1951): messages of WebSocket (RFC 7692) and
// answers of HTTP. What it makes refers to nothing before it, so that it can be made once for all who see the same.
package deflate

import (
	"math/bits"
	"sync"

	"github.com/klauspost/compress/flate"
)

const (
	// leastText is the shortest text that is tried: shorter ones do not get smaller.
	leastText = 64
	// mostText is the longest. It takes about 4 ms, and others wait.
	mostText = 1 << 20
	// stateless is up to where a text is deflated without a table and a window, of 0.7 MB: those take 5 % off what has no more
	// than some ten readings, and 15 % off what is large.
	stateless = 512
	// level is where frames with a thousand readings become a tenth smaller than at level 1, in twice the time. Level 7 takes
	// another 4 % off, and needs 14 µs for the smallest, as do all levels of the standard library that are as good.
	level = 6
)

// Tail is what DEFLATE ends in that is complete but not over, and what a message leaves away (RFC 7692 section 7.2.1).
const Tail = "\x00\x00\xff\xff"

// deflater is memory that is used again.
type deflater struct {
	out []byte
	w   *flate.Writer // nil until it is needed
}

func (d *deflater) Write(p []byte) (int, error) {
	d.out = append(d.out, p...)
	return len(p), nil
}

var deflaters = sync.Pool{New: func() any { return new(deflater) }}

// Append appends text in blocks that end with Tail. It reports false, and dst as it was, if that would not be smaller, or takes
// too long.
func Append(dst, text []byte) (out []byte, ok bool) { return appendBlocks(dst, text, false) }

// appendBlocks does it. Over says that the last block ends the stream: there is no Tail then.
func appendBlocks(dst, text []byte, over bool) (out []byte, ok bool) {
	if len(text) < leastText || len(text) > mostText {
		return dst, false
	}
	d := deflaters.Get().(*deflater)
	d.out = dst
	// Errors would be those of Write.
	if len(text) <= stateless {
		_ = flate.StatelessDeflate(d, text, over, nil)
	} else {
		if d.w == nil {
			d.w, _ = flate.NewWriter(d, level)
		} else {
			d.w.Reset(d)
		}
		_, _ = d.w.Write(text)
		if over {
			_ = d.w.Close()
		} else {
			_ = d.w.Flush()
		}
	}
	out, d.out = d.out, nil
	deflaters.Put(d)
	if len(out)-len(dst) >= len(text) {
		return out[:len(dst)], false
	}
	return out, true
}

// AppendEnd appends a short text of ASCII in a block with fixed codes (RFC 1951 section 3.2.6), and an empty block without its
// Tail: the end of a message that begins with what Append has made, for example.
func AppendEnd(dst, text []byte) []byte {
	left := uint16(0b010) // 3 bits: not the last block, fixed codes
	for _, c := range text {
		left |= uint16(bits.Reverse8(0x30+c)) << 3 // codes begin with their highest bit, and what is below 144 has 8
		dst = append(dst, byte(left))
		left >>= 8
	}
	return append(dst, byte(left), 0) // 7 bits end the block, 3 begin the empty one, which ends its byte
}
