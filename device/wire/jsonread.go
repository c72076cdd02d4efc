package wire

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// The functions of this file read JSON (RFC 8259) at a position and return the position after it, which is negative if
// the text is not well-formed. They allocate nothing. That a frame is UTF-8 is checked once for the whole frame.

func jsonSpace(b []byte, p int) int {
	for uint(p) < uint(len(b)) && (b[p] == ' ' || b[p] == '\n' || b[p] == '\t' || b[p] == '\r') {
		p++
	}
	return p
}

// jsonByte returns the byte at p, zero at the end.
func jsonByte(b []byte, p int) byte {
	if uint(p) < uint(len(b)) {
		return b[p]
	}
	return 0
}

// jsonOpen returns the position after an opening bracket and the space before it.
func jsonOpen(b []byte, p int, bracket byte) int {
	if p = jsonSpace(b, p); jsonByte(b, p) != bracket {
		return -1
	}
	return p + 1
}

// jsonEnd reports whether nothing but space follows.
func jsonEnd(b []byte, p int) bool { return jsonSpace(b, p) == len(b) }

// jsonElement goes to the next element of an array. first is true after the opening bracket. At the end of the array
// more is false and next is the position after it.
func jsonElement(b []byte, p int, first bool) (next int, more bool) {
	p = jsonSpace(b, p)
	switch c := jsonByte(b, p); {
	case c == ']':
		return p + 1, false
	case first:
		return p, true
	case c == ',':
		return jsonSpace(b, p+1), true
	}
	return -1, false
}

// jsonMember goes to the next member of an object and returns its key as it is written, without the quotes, and the
// position of its value.
func jsonMember(b []byte, p int, first bool) (key []byte, next int, more bool) {
	p = jsonSpace(b, p)
	switch c := jsonByte(b, p); {
	case c == '}':
		return nil, p + 1, false
	case first:
	case c == ',':
		p = jsonSpace(b, p+1)
	default:
		return nil, -1, false
	}
	key, p = jsonString(b, p)
	if p < 0 {
		return nil, -1, false
	}
	if p = jsonSpace(b, p); jsonByte(b, p) != ':' {
		return nil, -1, false
	}
	return key, jsonSpace(b, p+1), true
}

// jsonString returns the string at p as it is written, without the quotes.
func jsonString(b []byte, p int) (raw []byte, next int) {
	if jsonByte(b, p) != '"' {
		return nil, -1
	}
	p++
	for start := p; p < len(b); p++ {
		switch c := b[p]; {
		case c == '"':
			return b[start:p], p + 1
		case c < ' ':
			return nil, -1
		case c == '\\':
			p++
			switch jsonByte(b, p) {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex4(b, p+1); !ok {
					return nil, -1
				}
				p += 4
			default:
				return nil, -1
			}
		}
	}
	return nil, -1
}

func hex4(b []byte, p int) (r rune, ok bool) {
	if p+4 > len(b) {
		return 0, false
	}
	for _, c := range b[p : p+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// jsonUnescape returns what a string that jsonString accepted stands for: raw itself if it has no escapes, else a copy
// appended to dst. ok is false for half of a surrogate pair, which is no text.
func jsonUnescape(dst, raw []byte) (text []byte, ok bool) {
	i := bytes.IndexByte(raw, '\\')
	if i < 0 {
		return raw, true
	}
	for ; i >= 0; i = bytes.IndexByte(raw, '\\') {
		dst = append(dst, raw[:i]...)
		c := raw[i+1]
		raw = raw[i+2:]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, _ := hex4(raw, 0)
			raw = raw[4:]
			if utf16.IsSurrogate(r) {
				if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
					return nil, false
				}
				low, _ := hex4(raw, 2)
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return nil, false
				}
				raw = raw[6:]
			}
			dst = utf8.AppendRune(dst, r)
			continue
		}
		dst = append(dst, c)
	}
	return append(dst, raw...), true
}

// jsonNumber returns the float64 nearest to the number at p, infinite if the number is beyond all of them.
func jsonNumber(b []byte, p int) (v float64, next int) {
	start := p
	negative := jsonByte(b, p) == '-'
	if negative {
		p++
	}
	var mantissa uint64
	digits := 0 // that count for the mantissa
	from := p
	for ; p < len(b) && b[p]-'0' <= 9; p++ {
		mantissa = mantissa*10 + uint64(b[p]-'0')
	}
	digits = p - from
	if digits == 0 || (digits > 1 && b[from] == '0') {
		return 0, -1
	}
	exp := 0
	if jsonByte(b, p) == '.' {
		p++
		from = p
		for ; p < len(b) && b[p]-'0' <= 9; p++ {
			mantissa = mantissa*10 + uint64(b[p]-'0')
		}
		if p == from {
			return 0, -1
		}
		digits += p - from
		exp = from - p
	}
	if c := jsonByte(b, p); c == 'e' || c == 'E' {
		var e int
		if e, p = jsonExponent(b, p+1); p < 0 {
			return 0, -1
		}
		exp += e
	}
	if digits > 19 || mantissa > MaxExactInt || exp < -22 || exp > 22 {
		return parseFloat(b[start:p]), p
	}
	// Mantissa and power of ten are exact, so one operation rounds once, to the nearest.
	v = float64(int64(mantissa))
	if exp < 0 {
		v /= powers[-exp]
	} else {
		v *= powers[exp]
	}
	if negative {
		v = -v
	}
	return v, p
}

var powers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
	1e21, 1e22,
}

// jsonExponent reads the digits after an e. Exponents over 10,000 all mean the same: they are cut there.
func jsonExponent(b []byte, p int) (e, next int) {
	c := jsonByte(b, p)
	if c == '-' || c == '+' {
		p++
	}
	from := p
	for ; p < len(b) && b[p]-'0' <= 9; p++ {
		if e < 10000 {
			e = e*10 + int(b[p]-'0')
		}
	}
	if p == from {
		return 0, -1
	}
	if c == '-' {
		e = -e
	}
	return e, p
}

func parseFloat(b []byte) float64 {
	// ParseFloat keeps nothing of its argument, and returns ±Inf beside an error of range.
	v, _ := strconv.ParseFloat(unsafe.String(unsafe.SliceData(b), len(b)), 64)
	return v
}

// jsonInt reads a number at p that is a whole one between -limit and limit. If the item is no such number, next is
// negative. A fraction of zero is allowed ("1.0"): some languages print whole floats so.
func jsonInt(b []byte, p int, limit int64) (v int64, next int) {
	// A few digits and nothing else, as nearly always.
	end := p
	for end < len(b) && b[end]-'0' <= 9 && end-p < 16 {
		v = v*10 + int64(b[end]-'0')
		end++
	}
	if n := end - p; n > 0 && n < 16 && (n == 1 || b[p] != '0') && v <= limit {
		if c := jsonByte(b, end); c == ',' || c == ']' || c == '}' {
			return v, end
		}
	}
	f, p := jsonNumber(b, p)
	if p < 0 || f != math.Trunc(f) || f < -float64(limit) || f > float64(limit) {
		return 0, -1
	}
	return int64(f), p
}

func jsonLiteral(b []byte, p int, word string) int {
	if len(b)-p >= len(word) && string(b[p:p+len(word)]) == word {
		return p + len(word)
	}
	return -1
}

// jsonSkip returns the position after the value at p, negative if it is not well-formed or nested deeper than depth.
func jsonSkip(b []byte, p, depth int) int {
	switch c := jsonByte(b, p); c {
	case '"':
		_, p = jsonString(b, p)
		return p
	case 't':
		return jsonLiteral(b, p, "true")
	case 'f':
		return jsonLiteral(b, p, "false")
	case 'n':
		return jsonLiteral(b, p, "null")
	case '[', '{':
		if depth <= 0 {
			return -1
		}
		p++
		for first := true; ; first = false {
			var more bool
			if c == '{' {
				_, p, more = jsonMember(b, p, first)
			} else {
				p, more = jsonElement(b, p, first)
			}
			if p < 0 || !more {
				return p
			}
			if p = jsonSkip(b, p, depth-1); p < 0 {
				return -1
			}
		}
	}
	_, p = jsonNumber(b, p)
	return p
}
